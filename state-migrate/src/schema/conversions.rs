//! The author's own conversions that an object has: `SCXU_CONVERSIONS()` in BPF leaves a struct in the BTF, with a
//! field for each. The field's name is that of the conversion, its place is its number, and its type is a struct of the
//! types that the conversion takes (`from`) and gives (`to`).

use serde::{Deserialize, Serialize};

use super::fields::Reader;
use super::{Column, SchemaError, Scope};
use crate::btf::{Btf, Kind};
use crate::types::Type;

/// The struct's name.
const LIST: &str = "policy_conversions";
/// The most bytes that a conversion can take, and the most that it can give.
pub const MAX_ARG: u32 = 64;

/// What a conversion of the author's own takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Its number in the object.
    pub number: u16,
    /// The type of the old value.
    pub from: Type,
    /// The type of the new one.
    pub to: Type,
}

/// The list of an object, read as far as tags ask for it.
pub(super) struct Conversions<'b> {
    btf: &'b Btf<'b>,
    list: Option<u32>,
}

/// The tag that names a conversion, for messages.
#[derive(Clone, Copy)]
struct Tag<'a> {
    scope: Scope,
    column: &'a Column,
    tag: &'static str,
    program: &'a str,
}

impl<'b> Conversions<'b> {
    pub(super) fn new(btf: &'b Btf<'b>) -> Conversions<'b> {
        Conversions { btf, list: btf.find(Kind::Struct, LIST) }
    }

    /// The conversions that a column's tags name, checked: each is in the object, and the types are the column's and,
    /// of the two that turn each other round, each other's.
    pub(super) fn of(
        &self,
        reader: &mut Reader,
        scope: Scope,
        column: &Column,
    ) -> Result<Vec<(String, Signature)>, SchemaError> {
        let Some(rule) = &column.rule.convert else { return Ok(Vec::new()) };
        let named = |tag, program| Tag { scope, column, tag, program };
        let forth = named("convert", rule.program.as_str());
        let convert = self.signature(reader, forth)?;
        forth.same("gives", &convert.to, "the column", &column.ty)?;
        let mut found = Vec::new();
        if let Some(program) = &rule.inverse {
            let back = named("inverse", program.as_str());
            let inverse = self.signature(reader, back)?;
            back.same("takes", &inverse.from, "the column", &column.ty)?;
            back.same("gives", &inverse.to, &format!("what `{}` takes", forth.program), &convert.from)?;
            found.push((program.clone(), inverse));
        }
        found.push((rule.program.clone(), convert));
        Ok(found)
    }

    fn signature(&self, reader: &mut Reader, tag: Tag) -> Result<Signature, SchemaError> {
        let (scope, program) = (tag.scope, tag.program);
        let listed = self
            .list
            .and_then(|list| self.btf.members(list).enumerate().find(|(_, member)| member.name == program));
        let (number, listed) = listed.ok_or_else(|| {
            let (field, program) = (tag.column.name.clone(), program.to_owned());
            SchemaError::NoConversion { scope, field, tag: tag.tag, program }
        })?;
        let mut part = |name: &str| -> Result<Type, SchemaError> {
            let field = format!("{}, `{program}`, {name}", tag.column.name);
            let member = self.btf.members(listed.type_id).find(|m| m.name == name);
            let member = member.ok_or_else(|| SchemaError::Malformed { scope, field: field.clone() })?;
            let ty = reader.part(scope, &field, member.type_id)?;
            match ty.size() {
                ..=MAX_ARG => Ok(ty),
                size => Err(SchemaError::ConversionTooLarge { scope, field, size }),
            }
        };
        let (from, to) = (part("from")?, part("to")?);
        // No C struct has as many members.
        Ok(Signature { number: u16::try_from(number).unwrap_or(u16::MAX), from, to })
    }
}

impl Tag<'_> {
    fn same(self, does: &'static str, is: &Type, other: &str, expected: &Type) -> Result<(), SchemaError> {
        if is == expected {
            return Ok(());
        }
        Err(SchemaError::ConversionType {
            scope: self.scope,
            field: self.column.name.clone(),
            program: self.program.to_owned(),
            does,
            is: Box::new(is.clone()),
            other: other.to_owned(),
            expected: Box::new(expected.clone()),
        })
    }
}
