//! The macro that makes a struct and the keys of its fields from one row per key.

/// Declares a table of the configuration.
///
/// A row `name: Type as VALUE_TYPE = "default";` becomes a field of the struct, its documentation,
/// a key of the table, and a line of its reader. In place of the default may stand a `KeyPresence`
/// after a comma; neither means `Optional`. A field of `Option<T>` has a key of `T` that may be
/// absent; if another field has no value, the whole struct has none.
///
/// Each table has a module of its own with its keys, `KEYS` and `read`. A struct may have several
/// tables. The rows of `tables within` are fields that the reader of another table fills.
macro_rules! section {
    (
        $(#[$doc:meta])*
        $vis:vis struct $name:ident of $($module:ident = $table:literal),+ {
            $($rows:tt)*
        }
    ) => {
        section! {
            $(#[$doc])* $vis struct $name of $($module = $table),+ { $($rows)* } tables within {}
        }
    };
    (
        $(#[$doc:meta])*
        $vis:vis struct $name:ident of $($module:ident = $table:literal),+ {
            $($rows:tt)*
        } tables within $inner:tt
    ) => {
        section!(@struct [$(#[$doc])*] $vis $name { $($rows)* } $inner);
        section!(@modules $name [$($module = $table),+] { $($rows)* } $inner);
    };

    (@struct [$($docs:tt)*] $vis:vis $name:ident {
        $(
            $(#[$doc:meta])*
            $field:ident: $outer:ident $(<$inner:ident>)? as $type:ident
                $(= $default:tt)? $(, $presence:expr)?;
        )*
    } {
        $($(#[$table_doc:meta])* $table:ident: $table_type:ty = $reader:path;)*
    }) => {
        $($docs)*
        $vis struct $name {
            $(
                $(#[$doc])*
                $(#[doc = section!(@documented $default)])?
                $vis $field: $outer $(<$inner>)?,
            )*
            $($(#[$table_doc])* $vis $table: $table_type,)*
        }
    };

    (@modules $name:ident [$($module:ident = $table:literal),+] $rows:tt $inner:tt) => {
        $(section!(@module $name $module $table $rows $inner);)+
    };

    (@module $name:ident $module:ident $prefix:literal {
        $(
            $(#[$doc:meta])*
            $field:ident: $outer:ident $(<$inner:ident>)? as $type:ident
                $(= $default:tt)? $(, $presence:expr)?;
        )*
    } {
        $(
            $(#[$table_doc:meta])*
            $table:ident: $table_outer:ident $(<$table_inner:ident>)? = $reader:path;
        )*
    }) => {
        #[expect(non_upper_case_globals, reason = "a key has the name of its field")]
        pub(in crate::config) mod $module {
            use super::*;
            use crate::config::{
                key::{AnyConfigKey, ConfigKey, KeyPresence},
                settings::RawSettings,
            };

            $(pub(in crate::config) static $field: ConfigKey<section!(@value $outer $($inner)?)> =
                ConfigKey::new(
                    concat!($prefix, ".", stringify!($field)),
                    section!(@presence $($default)? $(, $presence)?),
                    $type,
                );)*

            pub(in crate::config) const KEYS: &[&dyn AnyConfigKey] = &[$(&$field),*];

            /// Reads the table; returns `None` if a value is missing or invalid.
            pub(in crate::config) fn read(settings: &RawSettings) -> Option<$name> {
                Some($name {
                    $($field: section!(@read $outer settings.get(&$field)),)*
                    $($table: section!(@read $table_outer $reader(settings)),)*
                })
            }
        }
    };

    (@documented "") => { "Empty by default." };
    (@documented $default:tt) => { concat!("Default `", $default, "`.") };

    (@value Option $inner:ident) => { $inner };
    (@value $outer:ident $inner:ident) => { $outer<$inner> };
    (@value $outer:ident) => { $outer };

    (@presence $default:literal) => { KeyPresence::Default($default) };
    (@presence , $presence:expr) => { $presence };
    (@presence) => { KeyPresence::Optional };

    (@read Option $value:expr) => { $value };
    (@read $outer:ident $value:expr) => { $value? };
}

pub(super) use section;
