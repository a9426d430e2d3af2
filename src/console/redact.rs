//! Masking: no secret leaves through a dump, a log or an announcement, in whatever form it is written.
//!
//! Known secrets are found by *value*: as they are, percent-encoded, form-encoded, JSON-escaped, and inside any base64 or
//! base64url text (so also in `Basic` credentials, whatever the user name). Then values are masked by *name*: see
//! [`names`](super::names). A secret of fewer than [`MIN_LENGTH`] bytes is masked by name only; it would be found
//! everywhere.
//!
//! Of a value over 20 characters at most the first four and the last four stay; of others nothing does. Compressed or
//! encrypted bytes are not looked into; bodies are decoded before they are shown.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    hash::{BuildHasher, RandomState},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use aho_corasick::{AhoCorasick, MatchKind};
use arc_swap::{ArcSwap, Guard};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::{
    names::Names,
    views::{chunked_head, each_view},
};
use crate::{auth::sources::Lifetime, config::RedactConfig, secret::Secret};

/// Shorter secrets are not looked for by value.
pub const MIN_LENGTH: usize = 4;
/// Secrets remembered of each lifetime; when there are more, the oldest is forgotten.
pub const MAX_SECRETS: usize = 4096;
/// Bytes of a form that go into the automaton; the rest is compared.
const PREFIX: usize = 24;
/// Prefixes that are searched for without an automaton, which is as many as processors can compare at once.
const GLANCED_AT: usize = 64;
/// Bytes whose other readings are made at once.
pub(super) const PART: usize = 128 << 10;
/// Bytes of the longest escape of one character: two `\uXXXX`.
const LONGEST_ESCAPE: usize = 12;

/// Knows the secrets and the names of secrets, and masks them. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Redactor {
    known: Arc<Known>,
    names: Arc<ArcSwap<Names>>,
    reveal: bool,
}

struct Known {
    state: Mutex<State>,
    hasher: RandomState,
}

#[derive(Default)]
struct State {
    /// Of the configuration. However many tokens come and go, these stay.
    lasting: Remembered,
    passing: Remembered,
    /// Counts what was added.
    added: u64,
    /// `None` when a secret was added since it was built.
    search: Option<Arc<Search>>,
}

/// Secrets in the order of their age, by hash.
#[derive(Default)]
struct Remembered {
    secrets: VecDeque<(u64, Secret)>,
    hashes: HashSet<u64>,
}

/// Finds every form of every secret.
#[derive(Default)]
struct Search {
    automaton: Option<AhoCorasick>,
    /// Tells much faster than the automaton whether it would find anything: hardly any text holds a secret. Set where
    /// there are few.
    glance: Option<AhoCorasick>,
    /// For each pattern of the automaton the forms that begin with it.
    by_prefix: Vec<Vec<usize>>,
    forms: Vec<Form>,
    /// Indices of `forms` in the order of their bytes.
    sorted: Vec<usize>,
    longest: usize,
    shortest: usize,
}

struct Form {
    bytes: Vec<u8>,
    mask: Arc<str>,
    base64: bool,
}

/// A range of the original and what stands in its place.
pub(super) type Span = (Range<usize>, Arc<str>);

impl Default for Redactor {
    fn default() -> Self {
        Self::new(&RedactConfig::default())
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// A redactor that knows the usual names and those of `redact:`.
    pub fn new(config: &RedactConfig) -> Self {
        let known = Known { state: Mutex::default(), hasher: RandomState::new() };
        Self { known: Arc::new(known), names: Arc::new(ArcSwap::from_pointee(Names::new(config))), reveal: false }
    }

    /// Replaces the names of `redact:` after a reload, for all clones.
    pub fn set_names(&self, config: &RedactConfig) {
        self.names.store(Arc::new(Names::new(config)));
    }

    pub(super) fn names(&self) -> Guard<Arc<Names>> {
        self.names.load()
    }

    /// A redactor that masks nothing.
    pub(super) fn revealing(&self) -> Self {
        Self { reveal: true, ..self.clone() }
    }

    /// True if nothing is masked.
    pub(super) fn reveals(&self) -> bool {
        self.reveal
    }

    /// Remembers a secret. Adding one again moves it to the young end.
    pub fn add(&self, secret: &Secret, lifetime: Lifetime) {
        if secret.expose().len() < MIN_LENGTH {
            return;
        }
        let hash = self.known.hasher.hash_one(secret.expose());
        let mut state = self.known.state.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = match lifetime {
            Lifetime::Lasting => &mut state.lasting,
            Lifetime::Passing => &mut state.passing,
        };
        if remembered.is_new(hash, secret) {
            state.added += 1;
            state.search = None;
        }
    }

    /// Remembers a value made from a secret that is as good as the secret: a signing key, a session cookie.
    pub fn add_derived(&self, value: &str) {
        self.add(&Secret::new(value), Lifetime::Passing);
    }

    /// What finds the secrets known now. Built outside the lock, so that `add` never waits for it.
    fn search(&self) -> Arc<Search> {
        let lock = || self.known.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (secrets, added) = {
            let state = lock();
            if let Some(search) = &state.search {
                return Arc::clone(search);
            }
            (state.lasting.each().chain(state.passing.each()).cloned().collect::<Vec<_>>(), state.added)
        };
        let search = Arc::new(Search::new(secrets.iter()));
        let mut state = lock();
        if state.added == added {
            state.search = Some(Arc::clone(&search));
        }
        search
    }

    /// Masks known secrets by value.
    pub fn mask_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.mask_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(into_text(bytes)),
        }
    }

    /// Masks known secrets by value.
    pub fn mask_bytes<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        replace(bytes, self.value_spans(bytes, false))
    }

    /// The same for known secrets and `more`, which are not remembered. Nothing of them stays: such a text goes to others.
    pub fn mask_with(&self, text: &str, more: &[&Secret]) -> String {
        let more = Search::new(more.iter().copied().filter(|secret| secret.expose().len() >= MIN_LENGTH));
        let mut spans = self.value_spans(text.as_bytes(), false);
        more.find(text.as_bytes(), false, &mut |span| spans.push(span));
        more.find_in_views(text.as_bytes(), false, &mut |span| spans.push(span));
        let hidden: Arc<str> = Arc::from("***");
        spans.iter_mut().for_each(|(_, mask)| *mask = Arc::clone(&hidden));
        into_text(replace(text.as_bytes(), spans).into_owned())
    }

    /// Where known secrets stand. With `cut`, `bytes` end where a capture ended: a secret that only begins there counts.
    pub(super) fn value_spans(&self, bytes: &[u8], cut: bool) -> Vec<Span> {
        let mut spans = Vec::new();
        if self.reveal || bytes.is_empty() {
            return spans;
        }
        let search = self.search();
        // No other reading of a text is longer than the text.
        if search.forms.is_empty() || (bytes.len() < search.shortest && !cut) {
            return spans;
        }
        search.find(bytes, cut, &mut |span| spans.push(span));
        search.find_in_views(bytes, cut, &mut |span| spans.push(span));
        if cut {
            search.find_before_broken_escape(bytes, &mut |span| spans.push(span));
        }
        spans
    }
}

impl Remembered {
    /// Remembers a secret. True if it was not known.
    fn is_new(&mut self, hash: u64, secret: &Secret) -> bool {
        if !self.hashes.insert(hash) {
            // Age matters only when something will be forgotten.
            if self.secrets.len() > MAX_SECRETS / 2
                && let Some(index) = self.secrets.iter().position(|(other, _)| *other == hash)
                && let Some(entry) = self.secrets.remove(index)
            {
                self.secrets.push_back(entry);
            }
            return false;
        }
        self.secrets.push_back((hash, secret.clone()));
        if self.secrets.len() > MAX_SECRETS
            && let Some((oldest, _)) = self.secrets.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }

    fn each(&self) -> impl Iterator<Item = &Secret> {
        self.secrets.iter().map(|(_, secret)| secret)
    }
}

impl Search {
    fn new<'s>(secrets: impl Iterator<Item = &'s Secret>) -> Self {
        let mut forms: Vec<Form> = Vec::new();
        for secret in secrets {
            add_forms(secret.expose(), &mut forms);
        }
        let mut prefixes: Vec<Vec<u8>> = Vec::new();
        let mut by_prefix: Vec<Vec<usize>> = Vec::new();
        let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
        for (index, form) in forms.iter().enumerate() {
            let prefix = form.bytes[..form.bytes.len().min(PREFIX)].to_vec();
            let slot = *seen.entry(prefix.clone()).or_insert_with(|| {
                prefixes.push(prefix);
                by_prefix.push(Vec::new());
                by_prefix.len() - 1
            });
            by_prefix[slot].push(index);
        }
        let mut sorted: Vec<usize> = (0..forms.len()).collect();
        sorted.sort_unstable_by(|a, b| forms[*a].bytes.cmp(&forms[*b].bytes));
        let longest = forms.iter().map(|form| form.bytes.len()).max().unwrap_or(0);
        // Building fails only beyond billions of states, which `MAX_SECRETS` and `PREFIX` rule out.
        let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&prefixes).ok();
        let glance = (prefixes.len() <= GLANCED_AT)
            .then(|| AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(&prefixes).ok())
            .flatten();
        let shortest = forms.iter().map(|form| form.bytes.len()).min().unwrap_or(0);
        Self { automaton, glance, by_prefix, forms, sorted, longest, shortest }
    }

    fn find(&self, bytes: &[u8], cut: bool, found: &mut dyn FnMut(Span)) {
        if self.glance.as_ref().is_none_or(|glance| glance.is_match(bytes)) {
            self.find_whole(bytes, found);
        }
        if cut {
            self.find_begun(bytes, found);
        }
    }

    fn find_whole(&self, bytes: &[u8], found: &mut dyn FnMut(Span)) {
        let Some(automaton) = &self.automaton else { return };
        let mut done = 0;
        for hit in automaton.find_overlapping_iter(bytes) {
            for index in &self.by_prefix[hit.pattern().as_usize()] {
                let form = &self.forms[*index];
                let rest = &bytes[hit.start()..];
                if hit.start() + form.bytes.len() < done && !form.base64 {
                    continue;
                }
                if rest.starts_with(&form.bytes) {
                    let range = hit.start()..hit.start() + form.bytes.len();
                    done = done.max(range.end);
                    found((if form.base64 { widen(bytes, range) } else { range }, Arc::clone(&form.mask)));
                }
            }
        }
    }

    /// Looks into every other reading of the bytes, of long ones a part at a time.
    fn find_in_views(&self, bytes: &[u8], cut: bool, found: &mut dyn FnMut(Span)) {
        // Parts overlap so far that whatever begins within an escape at the edge of one lies whole in the one before.
        let margin = self.longest.saturating_mul(2 * LONGEST_ESCAPE);
        let size = PART.max(margin.saturating_mul(4));
        if bytes.len() <= size || chunked_head(bytes).is_some() {
            return self.find_in_views_of(bytes, 0..bytes.len(), cut, found);
        }
        let mut start = 0;
        loop {
            let end = (start + size).min(bytes.len());
            let is_last = end == bytes.len();
            self.find_in_views_of(bytes, start..end, cut && is_last, found);
            if is_last {
                return;
            }
            start = end - margin;
        }
    }

    fn find_in_views_of(&self, bytes: &[u8], part: Range<usize>, cut: bool, found: &mut dyn FnMut(Span)) {
        each_view(&bytes[part.clone()], &mut |view| {
            self.find(&view.bytes, cut, &mut |(range, mask)| {
                let to_end = cut && range.end == view.bytes.len();
                let original = view.original(range);
                let end = if to_end { bytes.len() } else { part.start + original.end };
                found((part.start + original.start..end, mask));
            });
        });
    }

    /// A capture may end within an escape (`%4`, `\u00`), which then hides that a secret has begun before it.
    fn find_before_broken_escape(&self, bytes: &[u8], found: &mut dyn FnMut(Span)) {
        let window = bytes.len() - bytes.len().min(self.longest.saturating_mul(LONGEST_ESCAPE) + LONGEST_ESCAPE);
        for end in bytes.len() - (bytes.len() - window).min(LONGEST_ESCAPE)..bytes.len() {
            if !matches!(bytes[end], b'%' | b'\\') {
                continue;
            }
            let part = &bytes[window..end];
            let mut begun = |(range, mask): Span| {
                if range.end == part.len() {
                    found((window + range.start..bytes.len(), mask));
                }
            };
            self.find(part, true, &mut begun);
            self.find_in_views(part, true, &mut begun);
        }
    }

    /// A form that begins so near the end that its rest is missing.
    fn find_begun(&self, bytes: &[u8], found: &mut dyn FnMut(Span)) {
        let from = bytes.len() - bytes.len().min(self.longest);
        for start in from..bytes.len() {
            let tail = &bytes[start..];
            let at = self.sorted.partition_point(|index| self.forms[*index].bytes.as_slice() < tail);
            let form = self.sorted.get(at).map(|index| &self.forms[*index]);
            if form.is_some_and(|form| form.bytes.starts_with(tail)) {
                found((start..bytes.len(), Arc::from("***")));
                return;
            }
        }
    }
}

/// The forms of one secret that decoding does not reduce to the secret itself.
fn add_forms(value: &str, forms: &mut Vec<Form>) {
    let mask: Arc<str> = mask(value).into();
    let mut add = |bytes: Vec<u8>, mask: &Arc<str>, base64| forms.push(Form { bytes, mask: Arc::clone(mask), base64 });
    add(value.as_bytes().to_vec(), &mask, false);
    let hidden: Arc<str> = Arc::from("***");
    // A key file may be shown with other line ends, or a line at a time.
    if value.contains('\n') {
        for line in value.lines().filter(|line| line.len() >= 16 && !line.starts_with("-----")) {
            add(line.as_bytes().to_vec(), &hidden, false);
        }
    }
    // Where the value begins within a group of three bytes decides how it looks in base64. The characters it shares with
    // its neighbours are left out here and added by `widen`.
    for offset in 0..3 {
        let mut padded = vec![0; offset];
        padded.extend_from_slice(value.as_bytes());
        let encoded = STANDARD_NO_PAD.encode(&padded);
        let skipped = [0, 2, 3][offset];
        let shared = usize::from(padded.len() % 3 != 0);
        let inner = &encoded.as_bytes()[skipped..encoded.len() - shared];
        if inner.len() < MIN_LENGTH {
            continue;
        }
        add(inner.to_vec(), &hidden, true);
        if inner.iter().any(|byte| matches!(byte, b'+' | b'/')) {
            let url_safe = |byte: &u8| match byte {
                b'+' => b'-',
                b'/' => b'_',
                byte => *byte,
            };
            add(inner.iter().map(url_safe).collect(), &hidden, true);
        }
    }
}

/// A base64 match with the characters at its edges that hold bits of the secret, and the padding.
fn widen(bytes: &[u8], range: Range<usize>) -> Range<usize> {
    let in_base64 = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte);
    let before = bytes[..range.start].iter().rev().take(1).take_while(in_base64).count();
    let after = bytes[range.end..].iter().take(3).take_while(in_base64).count();
    range.start - before..range.end + after
}

/// What stands for a secret value: at most four characters of each end if it has more than 20, else `***`.
pub fn mask(value: &str) -> String {
    let count = value.chars().count();
    if count <= 20 {
        return "***".to_owned();
    }
    let head: String = value.chars().take(4).collect();
    let tail: String = value.chars().skip(count - 4).collect();
    format!("{head}…{tail}")
}

/// Puts the masks in place. Overlapping ranges become one; the mask of the longest stands for all.
pub(super) fn replace(bytes: &[u8], mut spans: Vec<Span>) -> Cow<'_, [u8]> {
    spans.retain(|(range, _)| !range.is_empty());
    if spans.is_empty() {
        return Cow::Borrowed(bytes);
    }
    spans.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for (range, mask) in spans {
        match merged.last_mut() {
            Some((last, last_mask)) if range.start < last.end => {
                // Two different secrets intertwined: the ends that one mask shows may lie within the other.
                if range.end > last.end || (*last == range && *last_mask != mask) {
                    *last_mask = Arc::from("***");
                }
                last.end = last.end.max(range.end);
            }
            _ => merged.push((range, mask)),
        }
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for (range, mask) in merged {
        out.extend_from_slice(&bytes[at..range.start]);
        out.extend_from_slice(mask.as_bytes());
        at = range.end;
    }
    out.extend_from_slice(&bytes[at..]);
    Cow::Owned(out)
}

pub(super) fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
