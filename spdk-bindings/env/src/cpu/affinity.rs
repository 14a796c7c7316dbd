//! Which CPUs an OS thread may run on, and binding it to some.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::CpuError;

/// The CPUs that the calling OS thread may run on, ascending.
///
/// # Errors
/// [`CpuError::Affinity`] if the kernel does not say.
pub fn allowed() -> Result<Vec<usize>, CpuError> {
    let set = sched_getaffinity(None).map_err(|errno| CpuError::Affinity {
        action: "read the CPU affinity".into(),
        allowed: Vec::new(),
        source: errno.into(),
    })?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect())
}

/// Binds the calling OS thread to one CPU.
///
/// # Errors
/// [`CpuError::Affinity`] if the CPU does not exist or the process may not use it.
pub fn pin_current_thread(cpu: usize) -> Result<(), CpuError> {
    set_affinity(&[cpu], || format!("bind a thread to CPU {cpu}"))
}

/// Lets the calling OS thread run on all of `cpus`: what a helper thread does that was started from a bound one.
///
/// # Errors
/// [`CpuError::Affinity`] if none of them may be used.
pub fn allow_current_thread(cpus: &[usize]) -> Result<(), CpuError> {
    set_affinity(cpus, || format!("let a thread run on CPUs {cpus:?}"))
}

fn set_affinity(cpus: &[usize], action: impl Fn() -> String) -> Result<(), CpuError> {
    let refused = |source: std::io::Error| CpuError::Affinity {
        action: action(),
        allowed: allowed().unwrap_or_default(),
        source,
    };
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(refused(std::io::ErrorKind::InvalidInput.into()));
        }
        set.set(cpu);
    }
    sched_setaffinity(None, &set).map_err(|errno| refused(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_can_be_bound_and_a_missing_cpu_is_named() {
        let first = allowed().expect("affinity")[0];
        std::thread::spawn(move || {
            pin_current_thread(first).expect("an allowed CPU");
            assert_eq!(allowed().expect("affinity"), [first]);
        })
        .join()
        .expect("no panic");
        let error = std::thread::spawn(|| pin_current_thread(100_000))
            .join()
            .expect("no panic")
            .expect_err("no such CPU");
        assert!(error.to_string().contains("CPU 100000"), "{error}");
    }
}
