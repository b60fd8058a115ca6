//! What the kernel knows of a process: processor time, memory, bytes written.

use std::fs;
use std::time::Duration;

/// A running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(pub u32);

impl Process {
    fn file(self, name: &str) -> Result<String, String> {
        let path = format!("/proc/{}/{name}", self.0);
        fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
    }

    /// User and system time of all its threads.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(self) -> Result<Duration, String> {
        let stat = self.file("stat")?;
        ticks(&stat)
            .map(|ticks| Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
            .ok_or_else(|| format!("/proc/{}/stat is not as expected: {stat}", self.0))
    }

    /// Bytes that it made the kernel write to a disk, whole pages.
    ///
    /// # Errors
    /// It has ended, or the kernel does not count.
    pub fn written(self) -> Result<u64, String> {
        self.figure("io", "write_bytes:")
    }

    /// Bytes of memory in use.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(self) -> Result<u64, String> {
        Ok(self.figure("status", "VmRSS:")? * 1024)
    }

    /// The most bytes of memory in use since [`forget_peak`](Self::forget_peak).
    ///
    /// # Errors
    /// It has ended.
    pub fn memory_peak(self) -> Result<u64, String> {
        Ok(self.figure("status", "VmHWM:")? * 1024)
    }

    /// Makes the peak what is in use now.
    ///
    /// # Errors
    /// It has ended, or belongs to somebody else.
    pub fn forget_peak(self) -> Result<(), String> {
        // proc(5): 5 resets the peak resident set size.
        fs::write(format!("/proc/{}/clear_refs", self.0), "5").map_err(|error| error.to_string())
    }

    fn figure(self, file: &str, name: &str) -> Result<u64, String> {
        let text = self.file(file)?;
        figure(&text, name).ok_or_else(|| format!("/proc/{}/{file} has no {name}", self.0))
    }
}

/// utime + stime. The second field is the program's name in brackets, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn figure(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_behind_a_name_with_brackets() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 33 5 6 20 0 4 0 99";
        assert_eq!(ticks(stat), Some(283));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn own_process_has_figures() {
        let own = Process(std::process::id());
        assert!(own.memory().unwrap() > 1 << 20);
        assert!(own.memory_peak().unwrap() >= own.memory().unwrap() / 2);
        own.cpu().unwrap();
    }

    #[test]
    fn process_that_ended_is_named() {
        assert!(Process(u32::MAX).cpu().unwrap_err().contains("/proc/4294967295/stat"));
    }
}
