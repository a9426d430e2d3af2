//! Trees into structs: a serde `Deserializer` over [`Node`] that pins every error to its key or value.
//!
//! serde stops at the first error, users want all. So what is wrong is noted and left out, and the struct is read
//! again without it, until nothing new turns up. Messages name kinds (`expected a number, found text`), never values,
//! because values may be secrets.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor, value::BorrowedStrDeserializer},
};

use super::{
    At, Place,
    diagnostics::{Diagnostic, closest},
    text::TEXT,
    yaml::{Entry, Node, Scalar, Value, is_bool},
};

/// Reads a struct. Unknown keys are errors even where the struct does not say so.
pub fn from_node<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<Diagnostic>> {
    if node.value == Value::Wrong {
        return Err(Vec::new());
    }
    let notes = Notes::default();
    // Each round leaves out at least one more entry, so this ends; the bound keeps it short.
    for _ in 0..MAX_ROUNDS {
        match T::deserialize(Reader { node, notes: &notes }) {
            Ok(value) => {
                let found = notes.found.take();
                return if found.is_empty() && !notes.met_wrong.get() { Ok(value) } else { Err(found) };
            }
            Err(error) => {
                if !notes.note(error, node) {
                    break;
                }
            }
        }
    }
    Err(notes.found.take())
}

const MAX_ROUNDS: usize = 32;

/// A path, relative to the file that names it; `~/` is the home directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct ConfigPath(pub PathBuf);

impl AsRef<Path> for ConfigPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

/// A path as written in `file`, made absolute.
pub fn resolve_path(file: &Path, written: &str) -> PathBuf {
    let written = match written.strip_prefix("~/").zip(etcetera::home_dir().ok()) {
        Some((rest, home)) => home.join(rest),
        None => PathBuf::from(written),
    };
    let joined = file.parent().unwrap_or(Path::new("")).join(written);
    std::path::absolute(&joined).unwrap_or(joined)
}

/// One value or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

const AT: &str = "$countersign::At";
const NODE: &str = "$countersign::Node";
const PATH: &str = "$countersign::ConfigPath";
const ONE_OR_MANY: &str = "$countersign::OneOrMany";

thread_local! {
    /// Hands what serde's data model cannot carry from the deserializer to the types below.
    static HANDED: RefCell<Option<Handed>> = const { RefCell::new(None) };
}

enum Handed {
    Place(Place),
    Node(Node),
}

fn hand(what: Handed) {
    HANDED.with(|handed| *handed.borrow_mut() = Some(what));
}

fn take_handed() -> Option<Handed> {
    HANDED.with(|handed| handed.borrow_mut().take())
}

/// Why a value cannot be read.
#[derive(Debug)]
pub struct ReadError {
    what: Wrong,
    place: Option<Place>,
}

#[derive(Debug)]
enum Wrong {
    /// Noted already; the round is over.
    Noted,
    Missing(&'static str),
    Said(Box<Diagnostic>),
}

impl ReadError {
    fn said(diagnostic: Diagnostic) -> Self {
        Self { what: Wrong::Said(Box::new(diagnostic)), place: None }
    }

    fn message(message: impl Into<String>) -> Self {
        Self::said(Diagnostic::error(message))
    }

    /// Pins it to a place unless it has one.
    fn or_at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Wrong::Noted => f.write_str("errors were noted"),
            Wrong::Missing(field) => write!(f, "missing `{field}`"),
            Wrong::Said(diagnostic) => diagnostic.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::message(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::message(format!("expected {expected}, found {}", kind_of(&found)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::message(format!("expected {expected}, found another {}", kind_of(&found).trim_start_matches("a ")))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::said(unknown_word(variant, expected))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::said(unknown_field(field, expected.iter().copied()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { what: Wrong::Missing(field), place: None }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::message(format!("the key `{field}` is here twice"))
    }
}

fn kind_of(found: &de::Unexpected<'_>) -> &'static str {
    use de::Unexpected;
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "text",
        Unexpected::Unit | Unexpected::Option => "nothing",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a mapping",
        _ => "something else",
    }
}

/// An error for a word that is not one of a few.
pub fn unknown_word(word: &str, known: &[&str]) -> Diagnostic {
    let list = known.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
    let found = Diagnostic::error(format!("`{word}` is not one of {list}"));
    found.suggest(word, known.iter().copied())
}

/// An error for a key that does not exist.
pub fn unknown_field<'a>(field: &str, known: impl Iterator<Item = &'a str> + Clone) -> Diagnostic {
    let found = Diagnostic::error(format!("unknown field `{field}`"));
    if closest(field, known.clone()).is_some() {
        return found.suggest(field, known);
    }
    let list = known.map(|one| format!("`{one}`")).collect::<Vec<_>>();
    if list.is_empty() { found } else { found.help(format!("known fields are {}", list.join(", "))) }
}

/// What was found so far, and which entries are left out because of it.
#[derive(Default)]
struct Notes {
    found: RefCell<Vec<Diagnostic>>,
    /// Addresses of values that are wrong; used as identities only.
    skipped: RefCell<HashSet<usize>>,
    /// A value was left out that was reported elsewhere.
    met_wrong: Cell<bool>,
    /// Names of keys whose values are wrong, so that nobody says that they are missing.
    skipped_names: RefCell<HashSet<String>>,
}

fn identity(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

impl Notes {
    /// Notes an error that reached the top. False if another round cannot find more.
    fn note(&self, error: ReadError, node: &Node) -> bool {
        let place = error.place.unwrap_or_else(|| node.place.clone());
        match error.what {
            Wrong::Noted => return true,
            Wrong::Missing(field) if self.skipped_names.borrow().contains(field) => {}
            Wrong::Missing(field) => self.push(Diagnostic::error(format!("missing field `{field}`")).at(&place)),
            Wrong::Said(diagnostic) => {
                let placed = diagnostic.place.is_some();
                self.push(if placed { *diagnostic } else { diagnostic.at(&place) });
            }
        }
        false
    }

    fn push(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    fn skip(&self, name: Option<&str>, node: &Node) {
        self.skipped.borrow_mut().insert(identity(node));
        if let Some(name) = name {
            self.skipped_names.borrow_mut().insert(name.to_owned());
        }
    }

    /// True for what was found wrong, here or before.
    fn leaves_out(&self, name: Option<&str>, node: &Node) -> bool {
        if node.value == Value::Wrong {
            self.met_wrong.set(true);
            self.skip(name, node);
            return true;
        }
        let skipped = self.skipped.borrow();
        !skipped.is_empty() && skipped.contains(&identity(node))
    }

    /// Notes what is wrong with the value of an entry or item, which is left out from now on.
    fn wrong(&self, error: ReadError, name: Option<&str>, node: &Node) -> ReadError {
        if !matches!(error.what, Wrong::Noted) {
            self.note(error, node);
            self.skip(name, node);
        }
        ReadError { what: Wrong::Noted, place: None }
    }
}

/// The deserializer.
struct Reader<'n> {
    node: &'n Node,
    notes: &'n Notes,
}

impl<'n> Reader<'n> {
    /// The scalar as written.
    fn written(&self, expected: &str) -> Result<&'n Scalar, ReadError> {
        match &self.node.value {
            Value::Scalar(scalar) => Ok(scalar),
            _ => Err(ReadError::message(format!("expected {expected}, found {}", self.node.kind()))),
        }
    }

    /// The scalar with its references looked up, for everything but [`Text`](super::text::Text).
    fn scalar(&self, expected: &str) -> Result<Cow<'n, Scalar>, ReadError> {
        let scalar = self.written(expected)?;
        if !scalar.text.contains("${") {
            return Ok(Cow::Borrowed(scalar));
        }
        match super::text::Text::parse(&scalar.text).and_then(|text| text.read_now()) {
            Ok(text) => Ok(Cow::Owned(Scalar { text: text.into(), plain: true })),
            Err(error) => Err(ReadError::message(error.to_string())),
        }
    }

    fn number<T: std::str::FromStr>(&self) -> Result<T, ReadError> {
        let expected = match std::any::type_name::<T>() {
            "u8" => "a whole number up to 255",
            "u16" => "a whole number up to 65535",
            "f32" | "f64" => "a number",
            name if name.starts_with('u') => "a whole number that is not negative",
            _ => "a whole number",
        };
        let scalar = self.scalar(expected)?;
        if !scalar.plain {
            let said = Diagnostic::error(format!("expected {expected}, found text"));
            return Err(ReadError::said(said.help("write it without quotes")));
        }
        let text = scalar.text.replace('_', "");
        if text.starts_with('+') && !text[1..].starts_with(|c: char| c.is_ascii_digit()) {
            return Err(ReadError::message(format!("expected {expected}")));
        }
        text.parse()
            .map_err(|_| ReadError::message(format!("expected {expected}, found {}", self.node.kind_or_other())))
    }

    fn list<V: Visitor<'n>>(&self, items: &'n [Node], visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_seq(Items { rest: items.iter(), notes: self.notes })
    }

    fn mapping<V: Visitor<'n>>(
        &self,
        entries: &'n [Entry],
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_map(Entries { rest: entries.iter(), fields, value: None, notes: self.notes })
    }

    fn place<T>(&self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        result.map_err(|error| error.or_at(&self.node.place))
    }
}

impl Node {
    /// As [`Node::kind`], but a number that was not taken is another number.
    fn kind_or_other(&self) -> &'static str {
        match self.kind() {
            "a number" => "another number",
            kind => kind,
        }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
            let result = self.number::<$type>().and_then(|number| visitor.$visit(number));
            self.place(result)
        }
    )*};
}

impl<'n> Deserializer<'n> for Reader<'n> {
    type Error = ReadError;

    numbers! {
        deserialize_i8 visit_i8 i8; deserialize_i16 visit_i16 i16; deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64; deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8; deserialize_u16 visit_u16 u16; deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64; deserialize_u128 visit_u128 u128;
        deserialize_f32 visit_f32 f32; deserialize_f64 visit_f64 f64;
    }

    /// By the rules of YAML 1.2: numbers and booleans are those written without quotes.
    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let result = match &self.node.value {
            Value::Null | Value::Wrong => visitor.visit_unit(),
            Value::Sequence(items) => self.list(items, visitor),
            Value::Mapping(entries) => self.mapping(entries, None, visitor),
            Value::Scalar(Scalar { text, plain: false }) => visitor.visit_borrowed_str(text),
            Value::Scalar(Scalar { text, plain: true }) => {
                let leading_zero =
                    text.trim_start_matches('-').starts_with('0') && text.len() > 1 && !text.contains('.');
                if let Some(truth) = is_bool(text) {
                    visitor.visit_bool(truth)
                } else if leading_zero || !text.ends_with(|c: char| c.is_ascii_digit()) {
                    visitor.visit_borrowed_str(text)
                } else if let Ok(number) = text.parse::<u64>() {
                    visitor.visit_u64(number)
                } else if let Ok(number) = text.parse::<i64>() {
                    visitor.visit_i64(number)
                } else if let Ok(number) = text.parse::<f64>()
                    && number.is_finite()
                {
                    visitor.visit_f64(number)
                } else {
                    visitor.visit_borrowed_str(text)
                }
            }
        };
        self.place(result)
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let read = |scalar: &Scalar| {
            if let Some(truth) = is_bool(&scalar.text).filter(|_| scalar.plain) {
                return Ok(truth);
            }
            let said = Diagnostic::error(format!("expected `true` or `false`, found {}", self.node.kind()));
            Err(ReadError::said(match scalar.text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => said.label("write `true`"),
                "no" | "off" | "n" | "false" => said.label("write `false`"),
                _ => said,
            }))
        };
        let result = self
            .scalar("`true` or `false`")
            .and_then(|scalar| read(&scalar))
            .and_then(|truth| visitor.visit_bool(truth));
        self.place(result)
    }

    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let result = self.scalar("text").and_then(|scalar| match scalar {
            Cow::Borrowed(scalar) => visitor.visit_borrowed_str(&scalar.text),
            Cow::Owned(scalar) => visitor.visit_str(&scalar.text),
        });
        self.place(result)
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Null => visitor.visit_unit(),
            _ => {
                Err(ReadError::message(format!("expected nothing, found {}", self.node.kind())).or_at(&self.node.place))
            }
        }
    }

    fn deserialize_unit_struct<V: Visitor<'n>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(self, name: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        match name {
            AT => {
                hand(Handed::Place(self.node.place.clone()));
                visitor.visit_newtype_struct(self)
            }
            NODE => {
                hand(Handed::Node(self.node.clone()));
                visitor.visit_unit()
            }
            PATH => {
                let file = self.node.place.file.clone();
                let path = self.scalar("a path").map_err(|error| error.or_at(&self.node.place))?;
                if path.text.is_empty() {
                    return Err(ReadError::message("the path is empty").or_at(&self.node.place));
                }
                visitor.visit_string(resolve_path(&file, &path.text).to_string_lossy().into_owned())
            }
            TEXT => {
                let result = self.written("text").and_then(|scalar| visitor.visit_borrowed_str(&scalar.text));
                self.place(result)
            }
            ONE_OR_MANY => match &self.node.value {
                Value::Sequence(items) => self.list(items, visitor),
                _ => visitor.visit_seq(Items { rest: std::slice::from_ref(self.node).iter(), notes: self.notes }),
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let result = match &self.node.value {
            Value::Sequence(items) => self.list(items, visitor),
            _ => Err(ReadError::message(format!("expected a list, found {}", self.node.kind()))),
        };
        self.place(result)
    }

    fn deserialize_tuple<V: Visitor<'n>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let result = match &self.node.value {
            Value::Mapping(entries) => self.mapping(entries, None, visitor),
            Value::Null => self.mapping(&[], None, visitor),
            _ => Err(ReadError::message(format!("expected a mapping, found {}", self.node.kind()))),
        };
        self.place(result)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let result = match &self.node.value {
            Value::Mapping(entries) => self.mapping(entries, Some(fields), visitor),
            Value::Null => self.mapping(&[], Some(fields), visitor),
            _ => Err(ReadError::message(format!("expected a mapping, found {}", self.node.kind()))),
        };
        self.place(result)
    }

    /// Unit variants as text, others as a mapping with one key.
    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let result = match &self.node.value {
            Value::Scalar(scalar) => visitor.visit_enum(BorrowedStrDeserializer::<ReadError>::new(&scalar.text)),
            Value::Mapping(entries) if entries.len() == 1 => {
                visitor.visit_enum(OneEntry { entry: &entries[0], notes: self.notes })
            }
            _ => {
                let list = variants.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
                Err(ReadError::message(format!("expected one of {list}, found {}", self.node.kind())))
            }
        };
        self.place(result)
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }
}

struct Items<'n> {
    rest: std::slice::Iter<'n, Node>,
    notes: &'n Notes,
}

impl<'n> de::SeqAccess<'n> for Items<'n> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some(node) = self.rest.find(|node| !self.notes.leaves_out(None, node)) else { return Ok(None) };
        let read = seed.deserialize(Reader { node, notes: self.notes });
        read.map(Some).map_err(|error| self.notes.wrong(error, None, node))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Entries<'n> {
    rest: std::slice::Iter<'n, Entry>,
    fields: Option<&'static [&'static str]>,
    value: Option<&'n Entry>,
    notes: &'n Notes,
}

impl<'n> de::MapAccess<'n> for Entries<'n> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        for entry in self.rest.by_ref() {
            let name = &*entry.key.name;
            if self.notes.leaves_out(Some(name), &entry.value) {
                continue;
            }
            if let Some(fields) = self.fields
                && !fields.contains(&name)
            {
                let known = fields.iter().copied().filter(|field| !field.starts_with('$'));
                self.notes.push(unknown_field(name, known).at(&entry.key.place));
                self.notes.skip(None, &entry.value);
                continue;
            }
            self.value = Some(entry);
            let key = seed.deserialize(BorrowedStrDeserializer::new(name));
            return key.map(Some).map_err(|error: ReadError| {
                let error = error.or_at(&entry.key.place);
                self.notes.wrong(error, None, &entry.value)
            });
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some(entry) = self.value.take() else { return Err(ReadError::message("a value without its key")) };
        let read = seed.deserialize(Reader { node: &entry.value, notes: self.notes });
        read.map_err(|mut error| {
            // A field missing in a mapping is shown at the key that holds the mapping; so is an empty value.
            if matches!(error.what, Wrong::Missing(_)) || matches!(entry.value.value, Value::Null) {
                let own = error.place.as_ref().is_none_or(|place| *place == entry.value.place);
                if own {
                    error.place = Some(entry.key.place.clone());
                }
            }
            self.notes.wrong(error, Some(&entry.key.name), &entry.value)
        })
    }
}

/// `{variant: value}`
struct OneEntry<'n> {
    entry: &'n Entry,
    notes: &'n Notes,
}

impl<'n> de::EnumAccess<'n> for OneEntry<'n> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'n>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        let name: BorrowedStrDeserializer<'n, ReadError> = BorrowedStrDeserializer::new(&self.entry.key.name);
        match seed.deserialize(name) {
            Ok(variant) => Ok((variant, self)),
            Err(error) => Err(error.or_at(&self.entry.key.place)),
        }
    }
}

impl<'n> de::VariantAccess<'n> for OneEntry<'n> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Err(ReadError::message(format!("`{}` stands alone, without a value", self.entry.key.name))
            .or_at(&self.entry.key.place))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'n>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(Reader { node: &self.entry.value, notes: self.notes })
    }

    fn tuple_variant<V: Visitor<'n>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        Reader { node: &self.entry.value, notes: self.notes }.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'n>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        Reader { node: &self.entry.value, notes: self.notes }.deserialize_struct("", fields, visitor)
    }
}

impl<'n> IntoDeserializer<'n, ReadError> for Reader<'n> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = At<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of a configuration file")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<At<T>, D::Error> {
                let Some(Handed::Place(place)) = take_handed() else {
                    return Err(de::Error::custom("places are known in configuration files only"));
                };
                Ok(At { value: T::deserialize(inner)?, place })
            }
        }
        deserializer.deserialize_newtype_struct(AT, V(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of a configuration file")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
                match take_handed() {
                    Some(Handed::Node(node)) => Ok(node),
                    _ => Err(E::custom("trees are known in configuration files only")),
                }
            }
        }
        deserializer.deserialize_newtype_struct(NODE, V)
    }
}

impl<'de> Deserialize<'de> for ConfigPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = ConfigPath;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<ConfigPath, E> {
                Ok(ConfigPath(path.into()))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<ConfigPath, D::Error> {
                String::deserialize(inner).map(|path| ConfigPath(path.into()))
            }
        }
        deserializer.deserialize_newtype_struct(PATH, V)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for V<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<OneOrMany<T>, D::Error> {
                Vec::deserialize(inner).map(OneOrMany)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMany<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(OneOrMany(all))
            }
        }
        deserializer.deserialize_newtype_struct(ONE_OR_MANY, V(std::marker::PhantomData))
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({ "anyOf": [one, {"type": "array", "items": one}] })
    }
}

impl schemars::JsonSchema for ConfigPath {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Path".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A path, relative to this file" })
    }
}
