//! The operating system's keyring as the place of the store's key. It may be locked, absent or hang; nothing here waits
//! for it longer than a moment.

use std::path::Path;

use zeroize::Zeroizing;

/// The key of the stores in `folder`, if the keyring works. `make` puts a new key there if it has none.
#[cfg(feature = "keyring")]
pub(super) fn key(folder: &Path, make: bool) -> Result<Option<Zeroizing<[u8; 32]>>, String> {
    use std::{sync::mpsc, thread, time::Duration};

    if !may_exist() {
        return Err("there is no session bus".into());
    }
    let user = folder.display().to_string();
    let (sender, receiver) = mpsc::sync_channel(1);
    // A keyring that asks the user or hangs keeps this thread; it dies with the process.
    thread::Builder::new()
        .name("keyring".into())
        .spawn(move || {
            let _ = sender.send(ask(&user, make));
        })
        .map_err(|error| error.to_string())?;
    receiver.recv_timeout(Duration::from_secs(2)).map_err(|_| "it did not answer within 2 s".to_owned())?
}

/// No keyring is built in.
#[cfg(not(feature = "keyring"))]
pub(super) fn key(_folder: &Path, _make: bool) -> Result<Option<Zeroizing<[u8; 32]>>, String> {
    Err("this build has no keyring".into())
}

#[cfg(feature = "keyring")]
fn ask(user: &str, make: bool) -> Result<Option<Zeroizing<[u8; 32]>>, String> {
    let entry = keyring::v1::Entry::new("countersign", user).map_err(|error| error.to_string())?;
    match entry.get_password() {
        Ok(text) => super::key::decode(&Zeroizing::new(text)).map(Some).ok_or_else(|| "its entry is no key".into()),
        Err(keyring::v1::Error::NoEntry) if make => {
            let mut bytes = Zeroizing::new([0; 32]);
            aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| "no randomness".to_owned())?;
            let text = Zeroizing::new(super::key::hex(bytes.as_ref()));
            entry.set_password(&text).map_err(|error| error.to_string())?;
            // Believe it only if it gives the key back.
            let back = Zeroizing::new(entry.get_password().map_err(|error| error.to_string())?);
            if *back == *text { Ok(Some(bytes)) } else { Err("it did not keep the key".into()) }
        }
        Err(keyring::v1::Error::NoEntry) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// On Linux the keyring is behind the session bus; without one there is no need to ask.
#[cfg(feature = "keyring")]
fn may_exist() -> bool {
    !cfg!(target_os = "linux")
        || std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some()
        || std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| Path::new(&dir).join("bus").exists())
}
