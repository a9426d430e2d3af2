//! The one thread that renders and writes.
//!
//! Standard output carries exchanges, standard error carries announcements.

use std::{
    collections::VecDeque,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    inert, json,
    queue::Queue,
    raw,
    record::Exchange,
    redact::Redactor,
    sink::{ConsoleOptions, Level, Tunnel},
    terminal::{self, Style},
};

/// What waits to be written.
#[derive(Debug)]
pub(super) enum Item {
    Exchange(Arc<Exchange>),
    Tunnel(Tunnel),
    Announcement(String),
}

/// Rendered output is written at the latest when so much has gathered.
const BATCH_BYTES: usize = 256 << 10;

/// What the writer thread owns.
pub(super) struct Writer {
    json: bool,
    level: Level,
    style: Style,
    redactor: Redactor,
    terminal: bool,
    body_limit: usize,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    output_gone: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn new(options: ConsoleOptions, output_gone: Arc<AtomicBool>) -> Self {
        let redactor = if options.show_secrets { options.redactor.revealing() } else { options.redactor };
        Self {
            json: options.json,
            level: options.level,
            style: Style {
                color: options.color,
                unicode: options.unicode,
                offset: options.offset,
                environment: options.environment,
            },
            redactor,
            terminal: options.terminal,
            body_limit: options.body_limit,
            out: options.out,
            err: options.err,
            output_gone,
        }
    }

    /// Writes until the queue is closed.
    pub(super) fn run(mut self, queue: &Queue<Item>) {
        while let Some((items, dropped)) = queue.take() {
            self.write_batch(items, dropped);
        }
    }

    fn write_batch(&mut self, items: VecDeque<Item>, dropped: u64) {
        let mut pending = Vec::new();
        for item in items {
            match item {
                Item::Announcement(message) => {
                    self.write_out(&mut pending);
                    let text = self.redactor.mask_text(&message);
                    self.write_err(&inert::lines(&text));
                }
                item => self.render_safely(item, &mut pending),
            }
            if pending.len() >= BATCH_BYTES {
                self.write_out(&mut pending);
            }
        }
        self.write_out(&mut pending);
        if dropped > 0 {
            self.write_err(&format!("{dropped} exchanges not shown: the output is too slow"));
        }
    }

    /// A defect in a viewer must not silence the console for good.
    fn render_safely(&self, item: Item, out: &mut Vec<u8>) {
        let length = out.len();
        let rendered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.render(item, out)));
        if rendered.is_err() {
            out.truncate(length);
            tracing::error!("an exchange could not be shown");
        }
    }

    fn render(&self, item: Item, out: &mut Vec<u8>) {
        if self.output_gone.load(Ordering::Relaxed) {
            return;
        }
        match item {
            Item::Exchange(exchange) if self.json => {
                json::exchange(&exchange, &self.redactor, &self.style, self.body_limit, out);
            }
            Item::Tunnel(tunnel) if self.json => json::tunnel(&tunnel, &self.redactor, out),
            Item::Exchange(exchange) => {
                let viewer = terminal::Viewer {
                    style: &self.style,
                    redactor: &self.redactor,
                    body_limit: self.body_limit,
                    level: self.level,
                };
                if self.level == Level::Raw && exchange.level >= Level::Raw {
                    raw::exchange(&exchange, &viewer, self.terminal, out);
                } else {
                    out.extend_from_slice(viewer.exchange(&exchange).as_bytes());
                }
            }
            Item::Tunnel(tunnel) => {
                out.extend_from_slice(terminal::tunnel_line(&tunnel, &self.style, &self.redactor).as_bytes());
            }
            Item::Announcement(_) => {}
        }
    }

    fn write_out(&mut self, pending: &mut Vec<u8>) {
        if !pending.is_empty() && self.out.write_all(pending).and_then(|()| self.out.flush()).is_err() {
            self.output_gone.store(true, Ordering::Relaxed);
        }
        pending.clear();
    }

    fn write_err(&mut self, message: &str) {
        let message = if self.style.unicode { message.into() } else { inert::ascii(message) };
        // With standard error gone there is nobody left to tell.
        let _ = writeln!(self.err, "countersign: {message}").and_then(|()| self.err.flush());
    }
}
