//! Looks for ways of the driver that the corpus does not take yet, or takes with longer inputs, and keeps what it finds:
//!
//!     cargo run --release -p nvme_fuzz --example fuzz -- --seconds 600 [--seed N]
//!
//! An input that makes the driver panic is left in `failed.bin` in the present folder; `-- --replay failed.bin` runs it again and says which ways
//! it takes. With `--seconds 0` inputs of the corpus that no longer take their way are only listed.
#![allow(clippy::print_stdout, reason = "a program's output")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nvme_fuzz::{Rng, mutate, run};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.next()?;
    arguments.next()
}

fn number(name: &str, otherwise: u64) -> u64 {
    let given = option(name).and_then(|text| text.parse().ok());
    given.unwrap_or(otherwise)
}

fn main() -> std::io::Result<()> {
    if let Some(file) = option("--replay") {
        run(&fs::read(file)?)
            .ways()
            .for_each(|way| println!("{way}"));
        return Ok(());
    }
    let mut known: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in fs::read_dir(corpus())? {
        let path = entry?.path();
        let bytes = fs::read(&path)?;
        let way = path.file_stem().unwrap_or_default().to_string_lossy();
        if run(&bytes).has(&way) {
            known.insert(way.into_owned(), bytes);
        } else {
            println!(
                "{} does not go this way any more: remove it",
                path.display()
            );
        }
    }
    let (seconds, mut rng) = (number("--seconds", 60), Rng::new(number("--seed", 1)));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut inputs: Vec<Vec<u8>> = known.values().cloned().collect();
    inputs.push(vec![0; 64]);
    let mut runs = 0u64;
    while Instant::now() < end {
        let (one, other) = (rng.below(inputs.len()), rng.below(inputs.len()));
        let bytes = mutate(&mut rng, &inputs[one], &inputs[other]);
        // Before it runs: a panic ends this.
        fs::write("failed.bin", &bytes)?;
        let outcome = run(&bytes);
        fs::remove_file("failed.bin")?;
        runs += 1;
        for way in outcome.ways() {
            let longest = known.get(way).map_or(usize::MAX, Vec::len);
            if bytes.len() < longest {
                if longest == usize::MAX {
                    println!("{way}");
                    inputs.push(bytes.clone());
                }
                fs::write(corpus().join(format!("{way}.bin")), &bytes)?;
                known.insert(way.to_owned(), bytes.clone());
            }
        }
    }
    println!("{runs} runs, {} ways", known.len());
    Ok(())
}
