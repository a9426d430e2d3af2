//! Values that only a configuration file can give: with their place, as a tree, relative to the file, or one or many.

use std::{
    cell::RefCell,
    fmt,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use crate::config::{At, Place, yaml::Node};

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

pub(super) const AT: &str = "$countersign::At";
pub(super) const NODE: &str = "$countersign::Node";
pub(super) const PATH: &str = "$countersign::ConfigPath";
pub(super) const ONE_OR_MANY: &str = "$countersign::OneOrMany";

thread_local! {
    /// Hands what serde's data model cannot carry from the deserializer to the types below.
    static HANDED: RefCell<Option<Handed>> = const { RefCell::new(None) };
}

pub(super) enum Handed {
    Place(Place),
    Node(Node),
}

pub(super) fn hand(what: Handed) {
    HANDED.with(|handed| *handed.borrow_mut() = Some(what));
}

fn take_handed() -> Option<Handed> {
    HANDED.with(|handed| handed.borrow_mut().take())
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
