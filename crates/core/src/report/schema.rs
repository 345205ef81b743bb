//! `docs/gc.schema.json`: what `gc --output json` prints, made from the types that it is printed from.

use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use super::Report;

/// Whether files that are made from code are to be written: as `cargo xtask generate` does.
const GENERATE: &str = "CHECKPOINT_KEEPER_GENERATE";

#[test]
fn the_schema_of_gc_is_what_the_code_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gc.schema.json");
    let mut schema =
        SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Report>();
    schema.insert("title".to_owned(), "What `checkpoint-keeper gc --output json` prints".into());
    let schema = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    if std::env::var_os(GENERATE).is_some() {
        std::fs::write(&path, schema).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == schema,
        "docs/gc.schema.json is not what the code makes: cargo xtask generate\n{schema}"
    );
}

/// The schema of an enum without data: its variants' names.
pub(crate) fn names<'de, T: Deserialize<'de>>(_: &mut SchemaGenerator) -> Schema {
    let mut variants: &[&str] = &[];
    let _ = T::deserialize(Variants(&mut variants));
    assert!(!variants.is_empty(), "is no enum");
    json_schema!({"type": "string", "enum": variants})
}

/// Finds out which variants an enum asks for.
struct Variants<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Variants<'_> {
    type Error = Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = variants;
        Err(Error::custom("only its variants are of interest"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("is no enum"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
