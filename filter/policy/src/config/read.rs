//! Reads a JSON document into types, and describes the types as JSON Schema.
//!
//! Serde stops at the first fault; an operator wants them all. So every type of the document says
//! how it is read and what its schema is, from one declaration.

use serde_json::{Value, json};

use super::fault::Faults;

/// A type of a document.
pub trait Read: Sized {
    /// Reads a value and says every fault in it. A faulty value is replaced by a stand-in, so that
    /// reading goes on and finds the rest; a document with faults is never used.
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self;

    /// What takes the place of a value that could not be read.
    fn stand_in() -> Self;

    /// What an absent field means; `None` where the field is required.
    fn absent() -> Option<Self> {
        None
    }

    /// Its JSON Schema.
    fn schema() -> Value;
}

impl<T: Read> Read for Option<T> {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        Some(T::read(value, path, faults))
    }

    fn stand_in() -> Self {
        None
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn schema() -> Value {
        T::schema()
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        let Some(items) = value.as_array() else {
            faults.add(path, value, "a list");
            return Vec::new();
        };
        let items = items.iter().enumerate();
        items
            .map(|(index, item)| T::read(item, &item_path(path, index), faults))
            .collect()
    }

    fn stand_in() -> Self {
        Vec::new()
    }

    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

impl Read for bool {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        value.as_bool().unwrap_or_else(|| {
            faults.add(path, value, "true or false");
            false
        })
    }

    fn stand_in() -> Self {
        false
    }

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

impl Read for u32 {
    fn read(value: &Value, path: &str, faults: &mut Faults) -> Self {
        // Envoy hands on a google.protobuf.Struct, in which every number is a double.
        let whole =
            |number: &f64| number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(number);
        match value.as_f64().filter(whole) {
            Some(number) => number as u32,
            None => {
                faults.add(path, value, "a whole number from 0 to 4294967295");
                0
            }
        }
    }

    fn stand_in() -> Self {
        0
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
    }
}

/// Declares an object of the document: fields in camelCase, `field: Type` required unless the type
/// says what an absent one means, `field: Type = default` optional, anything else a fault.
#[macro_export]
macro_rules! object {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $field_doc:literal])* $field:ident : $ty:ty $(= $default:expr)? ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name {
            $( $(#[doc = $field_doc])* $vis $field: $ty, )*
        }

        impl $crate::document::Read for $name {
            fn read(
                value: &serde_json::Value,
                path: &str,
                faults: &mut $crate::document::Faults,
            ) -> Self {
                const KEYS: &[&str] = &[$(stringify!($field)),*];
                let Some(fields) = $crate::document::fields(value, path, KEYS, faults) else {
                    return <Self as $crate::document::Read>::stand_in();
                };
                Self { $(
                    $field: fields.read::<$ty>(
                        stringify!($field),
                        None $(.or(Some($default)))?,
                        faults,
                    ),
                )* }
            }

            fn stand_in() -> Self {
                Self { $( $field: <$ty as $crate::document::Read>::stand_in(), )* }
            }

            fn schema() -> serde_json::Value {
                let mut schema = $crate::document::ObjectSchema::new(concat!($($doc),*));
                $( schema.field::<$ty>(
                    stringify!($field),
                    concat!($($field_doc),*),
                    !<[&str]>::is_empty(&[$(stringify!($default))?]),
                ); )*
                schema.finish()
            }
        }
    };
}
pub(crate) use crate::object;

/// The word in a value. YAML 1.1, which kubectl reads, makes `false` of an `off` without quotes.
pub(crate) fn word(value: &Value) -> Option<&str> {
    match value {
        Value::Bool(false) => Some("off"),
        value => value.as_str(),
    }
}

/// Says that a value is none of the words that are allowed.
pub(crate) fn none_of(words: &[&str], value: &Value, path: &str, faults: &mut Faults) {
    faults.add(path, value, &format!("one of {}", words.join(", ")));
}

/// The JSON Schema of a choice of words.
pub(crate) fn words_schema(words: &[&str]) -> Value {
    let mut allowed: Vec<Value> = words.iter().map(|word| Value::from(*word)).collect();
    if words.contains(&"off") {
        allowed.push(false.into());
    }
    json!({ "enum": allowed })
}

/// Declares a choice of words.
macro_rules! words {
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident {
            $( $(#[doc = $word_doc:literal])* $variant:ident = $word:literal ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $( $(#[doc = $word_doc])* $variant ),* }

        impl $crate::config::read::Read for $name {
            fn read(
                value: &serde_json::Value,
                path: &str,
                faults: &mut $crate::config::fault::Faults,
            ) -> Self {
                match $crate::config::read::word(value) {
                    $( Some($word) => Self::$variant, )*
                    _ => {
                        $crate::config::read::none_of(&[$($word),*], value, path, faults);
                        Self::stand_in()
                    }
                }
            }

            fn stand_in() -> Self {
                let [first, ..] = [$(Self::$variant),*];
                first
            }

            fn schema() -> serde_json::Value {
                $crate::config::read::words_schema(&[$($word),*])
            }
        }
    };
}
pub(crate) use words;

/// Declares a checked string.
#[macro_export]
macro_rules! text {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident: $allowed:literal, $check:expr
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name(pub(crate) String);

        impl $crate::document::Read for $name {
            fn read(
                value: &serde_json::Value,
                path: &str,
                faults: &mut $crate::document::Faults,
            ) -> Self {
                let check: fn(&str) -> bool = $check;
                match value.as_str() {
                    Some(text) if check(text) => Self(text.to_owned()),
                    _ => {
                        faults.add(path, value, $allowed);
                        Self::stand_in()
                    }
                }
            }

            fn stand_in() -> Self {
                Self(String::new())
            }

            fn schema() -> serde_json::Value {
                serde_json::json!({ "type": "string", "description": $allowed })
            }
        }
    };
}
pub(crate) use crate::text;

/// The fields of one object while it is read.
pub struct Fields<'a> {
    object: &'a serde_json::Map<String, Value>,
    path: &'a str,
}

/// Checks that `value` is an object and that it has no field but `keys` (in snake_case).
pub fn fields<'a>(
    value: &'a Value,
    path: &'a str,
    keys: &[&str],
    faults: &mut Faults,
) -> Option<Fields<'a>> {
    let allowed = || {
        keys.iter()
            .map(|key| camel(key))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Some(object) = value.as_object() else {
        let place = if path.is_empty() { "policy" } else { path };
        let allowed = format!("an object with the fields {}", allowed());
        faults.add(place, value, &allowed);
        return None;
    };
    for (key, value) in object {
        if !keys.iter().any(|known| camel(known) == *key) {
            let message = format!("unknown field; allowed: {}", allowed());
            faults.add(&join(path, key), value, &message);
        }
    }
    Some(Fields { object, path })
}

impl Fields<'_> {
    /// Reads a field; an absent one is `default`, or what its type says that it means.
    pub fn read<T: Read>(&self, key: &str, default: Option<T>, faults: &mut Faults) -> T {
        let (path, value) = self.field(key);
        match value {
            Some(value) => T::read(value, &path, faults),
            None => default.or_else(T::absent).unwrap_or_else(|| {
                faults.add_text(&path, "missing", "this field is required");
                T::stand_in()
            }),
        }
    }

    /// The path of a field and its value. Apart from [`Self::read`], of which there is a copy for
    /// each type of field.
    fn field(&self, key: &str) -> (String, Option<&Value>) {
        let key = camel(key);
        (join(self.path, &key), self.object.get(&key))
    }
}

fn item_path(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// The JSON Schema of one object while it is put together.
pub struct ObjectSchema {
    doc: &'static str,
    properties: serde_json::Map<String, Value>,
    required: Vec<String>,
}

impl ObjectSchema {
    /// The schema of an object without fields.
    pub fn new(doc: &'static str) -> Self {
        Self {
            doc,
            properties: serde_json::Map::new(),
            required: Vec::new(),
        }
    }

    /// Adds a field, by its name in Rust.
    pub fn field<T: Read>(&mut self, key: &str, doc: &str, has_default: bool) {
        let key = camel(key);
        let mut schema = T::schema();
        if let Some(schema) = schema.as_object_mut() {
            let description = match schema.get("description").and_then(Value::as_str) {
                Some(allowed) if schema.get("properties").is_none() => {
                    format!("{} Allowed: {allowed}.", doc.trim())
                }
                _ => doc.trim().to_owned(),
            };
            schema.insert("description".to_owned(), description.into());
        }
        if !has_default && T::absent().is_none() {
            self.required.push(key.clone());
        }
        self.properties.insert(key, schema);
    }

    /// The schema.
    pub fn finish(self) -> Value {
        json!({
            "type": "object",
            "description": self.doc.trim(),
            "properties": self.properties,
            "required": self.required,
            "additionalProperties": false,
        })
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// `on_missing` is `onMissing` in the document; `r#override` is `override`.
fn camel(snake: &str) -> String {
    let mut words = snake.trim_start_matches("r#").split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}
