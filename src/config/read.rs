//! Trees into structs: a serde `Deserializer` over [`Node`] that pins every error to its key or value.
//!
//! serde stops at the first error, users want all. So what is wrong is noted and left out, and the struct is read
//! again without it, until nothing new turns up. Messages name kinds (`expected a number, found text`), never values,
//! because values may be secrets.

mod entries;
mod error;
mod values;

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashSet,
};

use entries::{Entries, Items, OneEntry};
use error::Wrong;
pub use error::{ReadError, unknown_field, unknown_word};
use serde::{
    Deserializer,
    de::{DeserializeOwned, Visitor, value::BorrowedStrDeserializer},
};
use values::{AT, Handed, NODE, ONE_OR_MANY, PATH, hand};
pub use values::{ConfigPath, OneOrMany, resolve_path};

use super::{
    diagnostics::Diagnostic,
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
