//! The tags of one field, and what they come to.

use super::{MAX_NAME, MAX_UNIT, SchemaError, Scope};
use crate::rule::{Conversion, Rule, Scale, integer};
use crate::step::Number;
use crate::types::{StructField, Type};

pub(super) const PREFIX: &str = "scx:";
/// The tags that a field can have.
pub(super) const FIELD_TAGS: [&str; 8] =
    ["default", "from", "scale", "saturate", "unit", "momentary", "convert", "inverse"];
/// Those of them that have no value.
const WITHOUT_VALUE: [&str; 2] = ["saturate", "momentary"];

/// The texts of a field's tags, in the order of [`FIELD_TAGS`].
pub(super) struct Draft<'a> {
    pub(super) scope: Scope,
    pub(super) field: &'a StructField,
    pub(super) texts: [Option<&'a str>; FIELD_TAGS.len()],
}

impl<'a> Draft<'a> {
    /// Takes one tag, prefix included.
    pub(super) fn add(&mut self, tag: &'a str) -> Result<(), SchemaError> {
        let (scope, field) = (self.scope, self.field.name.clone());
        let body = tag.strip_prefix(PREFIX).unwrap_or(tag);
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        let Some(index) = FIELD_TAGS.iter().position(|t| *t == name) else {
            return Err(self.unknown(tag));
        };
        if WITHOUT_VALUE.contains(&name) == value.is_some() {
            return Err(if value.is_some() {
                SchemaError::TagValue { scope, field, tag: FIELD_TAGS[index] }
            } else {
                self.unknown(tag)
            });
        }
        if self.texts[index].is_some() {
            return Err(SchemaError::TwoTags { scope, field, tag: FIELD_TAGS[index] });
        }
        self.texts[index] = Some(value.unwrap_or_default().trim());
        Ok(())
    }

    fn unknown(&self, tag: &str) -> SchemaError {
        SchemaError::UnknownTag { place: format!("{}.{}", self.scope, self.field.name), tag: tag.to_owned() }
    }

    fn text(&self, tag: &str) -> Option<&'a str> {
        FIELD_TAGS.iter().position(|t| *t == tag).and_then(|i| self.texts[i])
    }

    pub(super) fn default(&self) -> Result<Option<i128>, SchemaError> {
        self.text("default").map(|text| parse_default(self.scope, self.field, text)).transpose()
    }

    pub(super) fn unit(&self) -> Result<Option<String>, SchemaError> {
        let Some(text) = self.text("unit") else { return Ok(None) };
        // Written as `scx:unit="ns"` by a macro that makes a string of its argument.
        let text = text.trim_matches('"');
        if text.is_empty() || text.len() > MAX_UNIT || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let (scope, field) = (self.scope, self.field.name.clone());
            return Err(SchemaError::BadUnit { scope, field, text: text.to_owned() });
        }
        Ok(Some(text.to_owned()))
    }

    pub(super) fn momentary(&self) -> bool {
        self.text("momentary").is_some()
    }

    pub(super) fn rule(&self) -> Result<Rule, SchemaError> {
        let (scope, field) = (self.scope, || self.field.name.clone());
        let from = self.name("from")?;
        if from.as_ref() == Some(&self.field.name) {
            return Err(SchemaError::FromItself { scope, field: field() });
        }
        let scale = self.text("scale").map(|text| self.scale(text)).transpose()?;
        let saturate = self.text("saturate").is_some();
        let (program, inverse) = (self.name("convert")?, self.name("inverse")?);
        if program.is_some() {
            for (one, present) in [("scale", scale.is_some()), ("saturate", saturate)] {
                if present {
                    let other = "convert";
                    return Err(SchemaError::Contradiction { scope, field: field(), one, other });
                }
            }
        } else if inverse.is_some() {
            return Err(SchemaError::InverseAlone { scope, field: field() });
        }
        let convert = program.map(|program| Conversion { program, inverse });
        Ok(Rule { from, scale, saturate, convert })
    }

    fn scale(&self, text: &str) -> Result<Scale, SchemaError> {
        let (scope, field) = (self.scope, self.field.name.clone());
        if self.field.ty.innermost() == &Type::Bool || Number::of(self.field.ty.innermost()).is_none() {
            return Err(SchemaError::ScaleOnOther { scope, field, ty: self.field.ty.to_string() });
        }
        Scale::parse(text).ok_or_else(|| SchemaError::BadScale { scope, field, text: text.to_owned() })
    }

    fn name(&self, tag: &'static str) -> Result<Option<String>, SchemaError> {
        let Some(text) = self.text(tag) else { return Ok(None) };
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || text.len() > MAX_NAME || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let (scope, field) = (self.scope, self.field.name.clone());
            return Err(SchemaError::BadName { scope, field, tag, text: text.to_owned() });
        }
        Ok(Some(text.to_owned()))
    }
}

fn parse_default(scope: Scope, field: &StructField, text: &str) -> Result<i128, SchemaError> {
    let elem = field.ty.innermost();
    let name = || field.name.clone();
    let Some(number) = Number::of(elem) else {
        return Err(SchemaError::DefaultOnStruct { scope, field: name() });
    };
    let boolean = *elem == Type::Bool;
    let value = match text {
        "true" if boolean => 1,
        "false" if boolean => 0,
        _ => integer(text).ok_or_else(|| {
            let text = text.to_owned();
            SchemaError::DefaultNotInteger { scope, field: name(), text, boolean }
        })?,
    };
    if !(-i128::from(number.max_negative())..=i128::from(number.max())).contains(&value) {
        return Err(SchemaError::DefaultTooBig { scope, field: name(), value, ty: elem.to_string() });
    }
    Ok(value)
}
