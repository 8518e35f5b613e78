//! Memory and CPU of a process, as the kernel tells them; and what this process may open.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::failure::Failure;

/// The kernel's unit for CPU time in /proc: the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: u32 = 100;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
}

/// Resident memory. From `smaps_rollup`, which counts; `status` alone is off by some hundred KiB on many cores.
pub(crate) fn memory(pid: u32) -> Result<Memory, Failure> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let memory = || {
        let status = read("status")?;
        let exact = read("smaps_rollup").ok().and_then(|text| kib(&text, "Rss:"));
        let resident_kib = exact.or_else(|| kib(&status, "VmRSS:")).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Memory { resident_kib, peak_kib: kib(&status, "VmHWM:").unwrap_or_default() })
    };
    memory().map_err(|source| Failure::Process { pid, source })
}

/// Files and sockets that it has open.
pub(crate) fn descriptors(pid: u32) -> Result<u64, Failure> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).map(|files| files.count() as u64);
    open.map_err(|source| Failure::Process { pid, source })
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().trim_end_matches("kB").trim().parse().ok()
}

/// User and system time of all its threads, those that ended too.
pub(crate) fn cpu(pid: u32) -> Result<Duration, Failure> {
    let cpu = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        ticks(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    let ticks: u64 = cpu().map_err(|source| Failure::Process { pid, source })?;
    Ok(Duration::from_secs(1) / TICKS_PER_SECOND * u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// Fields 14 and 15; the name in field 2 may hold blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    Some(field()? + field()?)
}

/// Keeps all threads of a process on one core. Ratios are steadier when what is measured has a core of its own.
pub(crate) fn pin(pid: u32, core: usize) -> Result<(), Failure> {
    let pin = || {
        let mut cores = CpuSet::new();
        cores.set(core);
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
            sched_setaffinity(thread, &cores)?;
        }
        Ok(())
    };
    pin().map_err(|source| Failure::Process { pid, source })
}

/// Load of the last minute, as the kernel writes it.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// Raises the soft limit of open files as far as the hard one allows. Returns what it is now.
pub(crate) fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    raised.map_or(limit.current, |()| limit.maximum).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_blanks_do_not_shift_the_fields() {
        assert_eq!(ticks("12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0"), Some(300));
    }

    #[test]
    fn this_process_can_be_measured() {
        assert!(memory(std::process::id()).unwrap().resident_kib > 100);
        assert!(cpu(std::process::id()).is_ok());
        assert!(descriptors(std::process::id()).unwrap() >= 3);
    }
}
