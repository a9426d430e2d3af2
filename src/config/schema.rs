//! The JSON Schema of configuration files, for completion in editors. Made of the structs that read them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value, json};

use super::raw::{RawConfig, RawStore, RawUpstream};
use crate::auth::SchemeConfig;

/// The schema of the main file; files of `rules.d` are subsets of it.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = false).into_generator();
    let schema = RawConfig::json_schema(&mut generator);
    let mut root = schema.to_value();
    let definitions: serde_json::Map<String, Value> = generator.take_definitions(true);
    if let Some(object) = root.as_object_mut() {
        object.insert("$schema".into(), json!("http://json-schema.org/draft-07/schema#"));
        object.insert("definitions".into(), Value::Object(definitions));
    }
    drop_null(&mut root);
    for section in SECTIONS {
        if let Some(property) = root.pointer_mut(&format!("/properties/{section}")) {
            or_empty(property);
        }
    }
    root
}

/// Parts of the file that may stand there empty, as they do when all of their lines are comments.
const SECTIONS: [&str; 9] =
    ["vars", "environments", "proxy", "console", "tokens", "secrets", "redact", "credentials", "rules"];

/// Lets a property be `null` too.
fn or_empty(property: &mut Value) {
    let mut whole = property.take();
    let description = whole.as_object_mut().and_then(|object| object.remove("description"));
    *property = json!({ "anyOf": [whole, { "type": "null" }] });
    if let (Some(object), Some(description)) = (property.as_object_mut(), description) {
        object.insert("description".into(), description);
    }
}

/// The schema as text, with a final newline.
pub fn schema_text() -> String {
    let mut text = serde_json::to_string_pretty(&schema()).unwrap_or_default();
    text.push('\n');
    text
}

/// A key that may be missing is not a key that may be `null`.
fn drop_null(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_null),
        Value::Object(object) => {
            object.values_mut().for_each(drop_null);
            // What remains of a default is the key itself being optional.
            if object
                .get("default")
                .is_some_and(|default| default.is_null() || default.is_object() || default.is_array())
            {
                object.remove("default");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|one| one != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    object.insert("type".into(), one);
                }
            }
            if let Some(Value::Array(words)) = object.get_mut("enum") {
                words.retain(|one| !one.is_null());
            }
            let Some(Value::Array(choices)) = object.get_mut("anyOf") else { return };
            choices.retain(|choice| choice.get("type") != Some(&json!("null")));
            if let [Value::Object(only)] = choices.as_slice() {
                let only = only.clone();
                object.remove("anyOf");
                if only.contains_key("$ref") && !object.is_empty() {
                    object.insert("allOf".into(), json!([only]));
                } else {
                    object.extend(only);
                }
            }
        }
        _ => {}
    }
}

/// A credential: one of the types, or one that extends another.
#[derive(Debug)]
pub struct CredentialSchema;

impl JsonSchema for CredentialSchema {
    fn schema_name() -> Cow<'static, str> {
        "Credential".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let types: Vec<Value> = SchemeConfig::schemas(generator)
            .into_iter()
            .map(|(name, schema)| with_type(name, resolve(schema.to_value(), generator)))
            .collect();
        json_schema!({
            "description": "A way to authenticate",
            "type": "object",
            "if": { "required": ["extends"] },
            "then": {
                "properties": {
                    "extends": { "type": "string", "description": "The credential whose keys this one inherits" },
                    "type": { "enum": SchemeConfig::TYPES }
                }
            },
            "else": {
                "required": ["type"],
                "oneOf": types
            }
        })
    }
}

/// Follows a reference into the definitions, because `type` is added to the object itself.
fn resolve(schema: Value, generator: &SchemaGenerator) -> Value {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    match name.and_then(|name| generator.definitions().get(name)) {
        Some(found) => found.clone(),
        None => schema,
    }
}

fn with_type(name: &str, mut schema: Value) -> Value {
    let Some(object) = schema.as_object_mut() else { return json!({ "properties": { "type": { "const": name } } }) };
    let mut properties = serde_json::Map::new();
    properties.insert("type".into(), json!({ "const": name }));
    if let Some(Value::Object(own)) = object.remove("properties") {
        properties.extend(own);
    }
    object.insert("properties".into(), Value::Object(properties));
    let mut required = vec![json!("type")];
    if let Some(Value::Array(own)) = object.remove("required") {
        required.extend(own);
    }
    object.insert("required".into(), Value::Array(required));
    schema
}

macro_rules! schema_of {
    ($(#[$doc:meta])* $name:ident: |$generator:ident| $schema:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

schema_of! {
    /// A credential by name, in place, or a list.
    Auth: |generator| {
        let credential = generator.subschema_for::<CredentialSchema>();
        json_schema!({
            "anyOf": [
                { "type": "string" },
                credential,
                { "type": "array", "items": { "anyOf": [{ "type": "string" }, credential] } }
            ]
        })
    }
}

schema_of! {
    /// `direct`, a URL or a mapping.
    Upstream: |generator| {
        let mapping = generator.subschema_for::<RawUpstream>();
        json_schema!({ "anyOf": [{ "const": "direct" }, { "type": "string" }, mapping] })
    }
}

schema_of! {
    /// `any`, a port or a list of ports.
    ConnectPortsSchema: |_generator| {
        let port = json!({ "type": "integer", "minimum": 1, "maximum": 65535 });
        json_schema!({ "anyOf": [{ "const": "any" }, port, { "type": "array", "items": port }] })
    }
}

schema_of! {
    /// Kinds of token stores.
    Store: |generator| {
        let mapping = generator.subschema_for::<RawStore>();
        json_schema!({ "anyOf": [{ "enum": ["auto", "file", "keyring"] }, mapping] })
    }
}
