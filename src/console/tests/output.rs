//! An output that stands still or is gone.

use super::*;

/// Output that stands still until the gate opens.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (open, changed) = &*self.0;
        let guard = open.lock().unwrap();
        let _guard = changed.wait_while(guard, |open| !*open).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_stands_still_holds_nobody_up() {
    let gate = Gate::default();
    let fixture = console(|options| options.out = Box::new(gate.clone()));
    for _ in 0..3000 {
        fixture.begin().finish(None);
    }
    let counts = fixture.console.counts();
    assert_eq!((counts.exchanges, counts.broken), (3000, 3000));
    assert!(counts.not_shown >= 3000 - 2 * 1024 && counts.not_shown < 3000, "{counts:?}");
    fixture.console.announce("still here");
    *gate.0.0.lock().unwrap() = true;
    gate.0.1.notify_all();
    assert!(fixture.console.flush(WAIT));
    let told = fixture.err.text();
    assert!(told.contains("exchanges not shown") && told.contains("countersign: still here"), "{told}");
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_is_recorded_once_the_output_is_gone() {
    let fixture = console(|options| options.out = Box::new(Broken));
    fixture.begin().finish(None);
    assert!(fixture.console.flush(WAIT));
    assert!(fixture.console.begin(|| (Client::default(), SystemTime::now())).is_none());
}
