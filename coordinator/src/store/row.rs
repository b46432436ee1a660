//! Structs that are read from a row. (sqlx's own derive would build `syn` and a crate of macros
//! into every program.)

/// Declares a struct and reads it from a row of any database. Each field is the column with its
/// name. A field `..name` is another struct that reads columns of the same row. A field `=name` is
/// not a column and starts with its type's default. Every field ends with a comma.
///
/// Errors are sqlx's: a missing column, or a column with another type.
macro_rules! row {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$doc:meta])* $field_vis:vis $field:ident: $type:ty,)*
            $(..$part_vis:vis $part:ident: $part_type:ty,)*
            $(=$(#[$own_doc:meta])* $own_vis:vis $own:ident: $own_type:ty,)*
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$doc])* $field_vis $field: $type,)*
            $($part_vis $part: $part_type,)*
            $($(#[$own_doc])* $own_vis $own: $own_type,)*
        }

        impl<'r, R: sqlx::Row> sqlx::FromRow<'r, R> for $name
        where
            &'static str: sqlx::ColumnIndex<R>,
            $($type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,)*
            $($part_type: sqlx::FromRow<'r, R>,)*
        {
            fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
                Ok(Self {
                    $($field: row.try_get(stringify!($field))?,)*
                    $($part: sqlx::FromRow::from_row(row)?,)*
                    $($own: Default::default(),)*
                })
            }
        }
    };
}
pub(super) use row;
