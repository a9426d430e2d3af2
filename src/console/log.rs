//! Log lines on their way out: masked and inert like everything else that is shown.

use std::io::{self, Write};

use super::{inert, redact::Redactor};

/// Passes whole lines on to another writer, with secrets masked and control characters made visible. What has no line end
/// yet is passed on by `flush` and on drop.
#[derive(Debug)]
pub struct MaskedWriter<W: Write> {
    redactor: Redactor,
    pending: Vec<u8>,
    inner: W,
}

/// A line that grows beyond this is passed on in pieces.
const MAX_PENDING: usize = 64 << 10;

impl<W: Write> MaskedWriter<W> {
    /// A writer in front of `inner`.
    pub fn new(redactor: Redactor, inner: W) -> Self {
        Self { redactor, pending: Vec::new(), inner }
    }

    fn pass(&mut self, end: usize) -> io::Result<()> {
        let rest = self.pending.split_off(end);
        let lines = std::mem::replace(&mut self.pending, rest);
        let masked = self.redactor.mask_bytes(&lines);
        self.inner.write_all(inert::lines_bytes(&masked).as_bytes())
    }
}

impl<W: Write> Write for MaskedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if let Some(end) = memchr::memrchr(b'\n', &self.pending) {
            self.pass(end + 1)?;
        } else if self.pending.len() > MAX_PENDING {
            self.pass(self.pending.len())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass(self.pending.len())?;
        self.inner.flush()
    }
}

impl<W: Write> Drop for MaskedWriter<W> {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_split_over_writes_is_masked() {
        let redactor = Redactor::default();
        redactor.add_derived("hunter22");
        let mut out = Vec::new();
        for split in 0..8 {
            let mut writer = MaskedWriter::new(redactor.clone(), &mut out);
            writer.write_all(&b"a hunter22"[..2 + split]).unwrap();
            writer.write_all(&b"a hunter22"[2 + split..]).unwrap();
            writer.write_all(b"\x1b[m\nrest").unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap(), "a ***\\x1b[m\nrest".repeat(8));
    }
}
