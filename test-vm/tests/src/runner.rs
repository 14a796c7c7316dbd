//! Runs tests one after the other. Tests that leave a machine as they found it share its boot; the output is that of `cargo test`,
//! which `cargo xtask test` counts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use test_vm::Lab;

use crate::lab;
use crate::rig::Rig;
use crate::tests::{self, Boot, Test};

/// Runs the tests whose names contain one of these words; all, if there are none.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let is_meant = |test: &&Test| {
        words.is_empty() || words.iter().any(|word| test.name.contains(word.as_str()))
    };
    let mut chosen: Vec<&Test> = tests::chosen().iter().filter(is_meant).collect();
    ensure!(
        !chosen.is_empty(),
        "no test's name contains any of: {}",
        words.join(", ")
    );
    // Neighbours share a boot.
    chosen.sort_by_key(|test| (test.profile, matches!(test.boot, Boot::Own)));
    println!("running {} tests", chosen.len());
    let begun = Instant::now();
    let lab = lab(&[])?;
    println!("prepared ({:.1} s)", begun.elapsed().as_secs_f64());
    let mut shared: Option<Rig> = None;
    let mut failures = Vec::new();
    for test in &chosen {
        let begun = Instant::now();
        let result = run_one(&lab, test, &mut shared);
        let outcome = if result.is_ok() { "ok" } else { "FAILED" };
        println!(
            "test {} ... {outcome} ({:.1} s)",
            test.name,
            begun.elapsed().as_secs_f64()
        );
        if let Err(error) = result {
            println!("{error:#}\n");
            failures.push(test.name);
        }
    }
    if let Some(rig) = shared {
        rig.finish()?;
    }
    if !failures.is_empty() {
        println!("\nfailures:\n    {}", failures.join("\n    "));
    }
    let outcome = if failures.is_empty() { "ok" } else { "FAILED" };
    let (passed, failed) = (chosen.len() - failures.len(), failures.len());
    println!("\ntest result: {outcome}. {passed} passed; {failed} failed");
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_one<'a>(lab: &'a Lab, test: &Test, shared: &mut Option<Rig<'a>>) -> Result<()> {
    let fits = |rig: &Rig| test.boot == Boot::Shared && rig.profile().name == test.profile;
    let mut rig = match shared.take() {
        Some(rig) if fits(&rig) => rig,
        other => {
            if let Some(rig) = other {
                rig.finish()?;
            }
            Rig::boot(lab, test.profile, test.name)?
        }
    };
    let result = catch_unwind(AssertUnwindSafe(|| (test.run)(&mut rig)));
    let result = result.unwrap_or_else(|panic| Err(anyhow!("{}", message(&*panic))));
    if let Err(error) = result {
        // A VM after a failure is in no known state: its logs are kept, its disks, too.
        if let Ok(vm) = rig.vm() {
            let _ = vm.save_kernel_log();
        }
        return Err(error.context(format!("logs and disks are in {}", rig.folder().display())));
    }
    match test.boot {
        Boot::Shared => *shared = Some(rig),
        Boot::Own => rig.finish()?,
    }
    Ok(())
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}
