//! Items of lists and entries of mappings: what is wrong with one is noted, and the others are read all the same.

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, IntoDeserializer, Visitor, value::BorrowedStrDeserializer},
};

use super::{Notes, ReadError, Reader, error::Wrong, unknown_field};
use crate::config::yaml::{Entry, Node, Value};

/// The items of a list.
pub(super) struct Items<'n> {
    pub(super) rest: std::slice::Iter<'n, Node>,
    pub(super) notes: &'n Notes,
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

/// The entries of a mapping.
pub(super) struct Entries<'n> {
    pub(super) rest: std::slice::Iter<'n, Entry>,
    pub(super) fields: Option<&'static [&'static str]>,
    pub(super) value: Option<&'n Entry>,
    pub(super) notes: &'n Notes,
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
pub(super) struct OneEntry<'n> {
    pub(super) entry: &'n Entry,
    pub(super) notes: &'n Notes,
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
