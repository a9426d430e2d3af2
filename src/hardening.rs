//! What the process does to itself before it touches a secret: no core file, no debugger of the same user's other
//! processes, private files by default, and as many open files as the system allows.

use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, getrlimit, setrlimit, umask},
};

/// What the process was like before, so that children can be started that way.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    mask: Mode,
    core: Rlimit,
    files: Rlimit,
    /// False if nothing was changed, so that there is nothing to take back.
    changed: bool,
}

/// Hardens this process. Nothing here is worth refusing to start for: what the system does not offer stays as it was.
pub fn harden() -> Inherited {
    let inherited = Inherited {
        mask: umask(PRIVATE),
        core: getrlimit(Resource::Core),
        files: getrlimit(Resource::Nofile),
        changed: true,
    };
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: inherited.core.maximum });
    let _ = setrlimit(Resource::Nofile, Rlimit { current: inherited.files.maximum, maximum: inherited.files.maximum });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    inherited
}

impl Inherited {
    /// For a process that was not hardened, such as one that uses this crate as a library.
    pub fn untouched() -> Self {
        Self { mask: PRIVATE, core: getrlimit(Resource::Core), files: getrlimit(Resource::Nofile), changed: false }
    }

    /// Runs `start` as the process was before, so that a child it starts inherits the user's own settings and not ours.
    pub fn during<T>(&self, start: impl FnOnce() -> T) -> T {
        if !self.changed {
            return start();
        }
        let files = getrlimit(Resource::Nofile);
        umask(self.mask);
        let _ = setrlimit(Resource::Core, self.core);
        let _ = setrlimit(Resource::Nofile, self.files);
        let result = start();
        let _ = setrlimit(Resource::Nofile, files);
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: self.core.maximum });
        umask(PRIVATE);
        result
    }
}

/// Only the owner may do anything.
const PRIVATE: Mode = Mode::from_bits_truncate(0o077);
