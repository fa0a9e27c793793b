//! How many CPU threads compute.

use std::{env, num::NonZero, thread};

/// `--threads`, else OMP_NUM_THREADS (torchrun sets it to 1), else all cores that this process may use.
pub fn resolve(asked: Option<u32>) -> usize {
    let omp = env::var("OMP_NUM_THREADS").ok();
    choose(asked, omp.as_deref(), thread::available_parallelism().map_or(1, NonZero::get))
}

fn choose(asked: Option<u32>, omp: Option<&str>, cores: usize) -> usize {
    // OpenMP allows a list, one number per level of nesting: the first one counts.
    let omp = omp.and_then(|v| v.split(',').next()?.trim().parse().ok());
    let asked = asked.and_then(|n| usize::try_from(n).ok());
    asked.or(omp).filter(|&n| (1..=1024).contains(&n)).unwrap_or(cores)
}

/// Gives torch's kernels and rayon's global pool the same number of threads. The pool is made once in a process; a
/// later call changes torch's number alone.
pub fn apply(threads: usize) {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    // Fails only when the pool exists already.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn the_flag_wins_then_the_variable_then_the_machine() {
        assert_eq!(choose(Some(3), Some("5"), 8), 3);
        assert_eq!(choose(None, Some("5"), 8), 5);
        assert_eq!(choose(None, Some("4,2"), 8), 4);
        assert_eq!(choose(None, Some("many"), 8), 8);
        assert_eq!(choose(None, Some("0"), 8), 8);
        assert_eq!(choose(None, None, 8), 8);
    }
}
