//! The process itself, under the names that all exporters use. What the system does not tell is left out.

use std::time::SystemTime;

use super::Family;

/// Start, CPU time, memory and open files.
pub fn families(started: SystemTime) -> Vec<Family> {
    let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = Family::gauge("process_start_time", "When the process started, in seconds since 1970.");
    let mut all = vec![start.seconds().is_real(since.as_secs_f64())];
    all.extend(usage());
    all.extend(files());
    all
}

/// proc(5): `/proc/self/stat`.
#[cfg(target_os = "linux")]
fn usage() -> Vec<Family> {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return Vec::new() };
    // The name of the program stands in brackets and may hold anything.
    let Some((_, fields)) = stat.rsplit_once(')') else { return Vec::new() };
    let field = |number: usize| fields.split_ascii_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let (Some(user), Some(system), Some(size), Some(pages)) = (field(14), field(15), field(23), field(24)) else {
        return Vec::new();
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 ticks")]
    let seconds = (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as u64;
    vec![
        Family::counter("process_cpu", "CPU time of user and system.").seconds().is_real(seconds),
        Family::gauge("process_virtual_memory", "Address space.").bytes().is(size),
        Family::gauge("process_resident_memory", "Memory in use.").bytes().is(pages * page),
    ]
}

#[cfg(not(target_os = "linux"))]
fn usage() -> Vec<Family> {
    Vec::new()
}

/// The number of open files, where the process may count its own, and their limit.
#[cfg(target_os = "linux")]
fn files() -> Vec<Family> {
    let mut all = Vec::new();
    // Not where the process is protected from being looked at and runs as an ordinary user.
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // Counting opens one itself.
        let open = (open.count() as u64).saturating_sub(1);
        all.push(Family::gauge("process_open_fds", "Open files.").is(open));
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        all.push(Family::gauge("process_max_fds", "Files that may be open.").is(limit));
    }
    all
}

#[cfg(not(target_os = "linux"))]
fn files() -> Vec<Family> {
    Vec::new()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::metrics::Format;

    #[test]
    fn the_figures_are_those_of_this_process() {
        let text = Format::Text.render(families(SystemTime::UNIX_EPOCH));
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.and_then(|line| line.rsplit(' ').next()).unwrap().parse::<f64>().unwrap()
        };
        assert_eq!(value("process_start_time_seconds"), 0.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_cpu_seconds_total") < 86400.0);
        assert!(value("process_max_fds") >= 3.0);
    }
}
