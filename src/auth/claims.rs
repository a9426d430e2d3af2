//! JSON objects in a configuration: written as a mapping whose strings may hold references, or as one JSON text. Members
//! keep their order, numbers stay numbers.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::held::Field;
use crate::{
    config::text::{Reference, Text},
    secret::Secret,
};

/// A JSON object as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(Claim);

/// A value in it.
#[derive(Clone, Debug, PartialEq)]
enum Claim {
    Null,
    Bool(bool),
    Number(Number),
    Text(Text),
    List(Vec<Claim>),
    Object(Vec<(String, Claim)>),
}

impl Default for Claims {
    fn default() -> Self {
        Self(Claim::Object(Vec::new()))
    }
}

impl Claims {
    /// The texts in it, in order, to be read when the credential is.
    ///
    /// Claims can be read by everyone who sees the token; only what comes from a place for secrets is masked.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let mut texts = Vec::new();
        self.0.texts(&mut texts);
        texts.into_iter().map(|text| if is_secret(text) { Field::secret(text) } else { Field::open(text) }).collect()
    }

    /// The object with the values of its texts, which are taken from `values` in the order of [`fields`](Self::fields).
    pub(crate) fn fill<'s>(&self, values: &mut impl Iterator<Item = &'s Secret>) -> Result<Map<String, Value>, String> {
        let value = match &self.0 {
            Claim::Text(_) => {
                let text = values.next().map(Secret::expose).unwrap_or_default();
                if text.trim().is_empty() {
                    return Ok(Map::new());
                }
                // The message of the parser quotes nothing but the place.
                serde_json::from_str(text)
                    .map_err(|error| format!("is not valid JSON (line {}, column {})", error.line(), error.column()))?
            }
            claim => claim.fill(values),
        };
        match value {
            Value::Object(object) => Ok(object),
            Value::Null => Ok(Map::new()),
            _ => Err("has to be a JSON object".to_owned()),
        }
    }
}

impl Claim {
    fn texts<'c>(&'c self, found: &mut Vec<&'c Text>) {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => {}
            Self::Text(text) => found.push(text),
            Self::List(items) => items.iter().for_each(|item| item.texts(found)),
            Self::Object(members) => members.iter().for_each(|(_, value)| value.texts(found)),
        }
    }

    fn fill<'s>(&self, values: &mut impl Iterator<Item = &'s Secret>) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(_) => Value::String(values.next().map(|value| value.expose().to_owned()).unwrap_or_default()),
            Self::List(items) => Value::Array(items.iter().map(|item| item.fill(values)).collect()),
            Self::Object(members) => {
                Value::Object(members.iter().map(|(name, value)| (name.clone(), value.fill(values))).collect())
            }
        }
    }
}

fn is_secret(text: &Text) -> bool {
    text.references().any(|reference| !matches!(reference, Reference::Env { .. }))
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Claim::deserialize(deserializer)? {
            claim @ (Claim::Text(_) | Claim::Object(_)) => Ok(Self(claim)),
            Claim::Null => Ok(Self::default()),
            _ => Err(de::Error::custom("expected a mapping, or JSON text that holds an object")),
        }
    }
}

impl<'de> Deserialize<'de> for Claim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Claim;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Claim, E> {
                Ok(Claim::Null)
            }

            fn visit_none<E: de::Error>(self) -> Result<Claim, E> {
                Ok(Claim::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Claim, D::Error> {
                Claim::deserialize(inner)
            }

            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Claim, E> {
                Ok(Claim::Bool(truth))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Claim, E> {
                Ok(Claim::Number(number.into()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Claim, E> {
                Ok(Claim::Number(number.into()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Claim, E> {
                Number::from_f64(number).map(Claim::Number).ok_or_else(|| E::custom("JSON has no such number"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Claim, E> {
                Text::parse(text).map(Claim::Text).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Claim, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Claim::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Claim, A::Error> {
                let mut object = Vec::new();
                while let Some(member) = members.next_entry::<String, Claim>()? {
                    object.push(member);
                }
                Ok(Claim::Object(object))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl schemars::JsonSchema for Claims {
    fn schema_name() -> Cow<'static, str> {
        "JsonObject".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["object", "string"],
            "description": "A JSON object as a mapping, whose strings may hold references, or as JSON text"
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn filled(claims: &Claims) -> Result<String, String> {
        let mut texts = Vec::new();
        claims.0.texts(&mut texts);
        let values: Vec<Secret> =
            texts.iter().map(|text| Secret::new(text.as_literal().unwrap_or("?".into()))).collect();
        claims.fill(&mut values.iter()).map(|object| Value::Object(object).to_string())
    }

    fn read(value: Value) -> Claims {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn order_and_numbers_stay() {
        let text = r#"{"z":1,"a":[1.5,-2,true,null,{"y":"x"}],"n":18446744073709551615}"#;
        assert_eq!(filled(&read(serde_json::from_str(text).unwrap())).unwrap(), text);
        assert_eq!(filled(&read(text.into())).unwrap(), text);
        assert_eq!(filled(&read(format!(" {text}\n ").into())).unwrap(), text);
        for empty in [json!(""), json!(" \n"), json!({}), Value::Null, json!("null")] {
            assert_eq!(filled(&read(empty)).unwrap(), "{}");
        }
    }

    #[test]
    fn yaml_reads_alike() {
        let text = "claims: {sub: '1', n: 5, on: true, t: '${env:X}', list: [a, 2], zip: '007', id: 007, f: 1.5}\n";
        let file: std::sync::Arc<std::path::Path> = std::path::Path::new("x.yaml").into();
        let found = crate::config::yaml::parse(&file, text).root.unwrap();
        let claims: Claims = crate::config::read::from_node(found.get("claims").unwrap()).unwrap();
        assert_eq!(
            filled(&claims).unwrap(),
            r#"{"sub":"1","n":5,"on":true,"t":"?","list":["a",2],"zip":"007","id":"007","f":1.5}"#
        );
    }

    #[test]
    fn only_places_for_secrets_make_a_claim_secret() {
        for (text, secret) in [("x", false), ("${env:X}", false), ("a ${secret:x}", true), ("${token:x}", true)] {
            assert_eq!(is_secret(&Text::parse(text).unwrap()), secret, "{text}");
        }
    }

    #[test]
    fn other_things_are_refused_without_repeating_them() {
        for (text, said) in [("[\"CANARY\"]", "JSON object"), ("{\"CANARY\":", "line 1"), ("\"CANARY\"", "JSON object")]
        {
            let error = filled(&read(text.into())).unwrap_err();
            assert!(error.contains(said) && !error.contains("CANARY"), "{error}");
        }
        for bad in [json!(1), json!(true), json!(["a"]), json!("${nope}")] {
            assert!(serde_json::from_value::<Claims>(bad.clone()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            if let Ok(claims) = serde_json::from_value::<Claims>(text.into()) {
                let _ = filled(&claims);
            }
        }
    }
}
