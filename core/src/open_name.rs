//! Names of a list that grows: other processes of the farm may be newer, and send names that this
//! version does not know. Such a name is kept unchanged, never refused.

use std::fmt;

/// A name that this version does not know. Only the conversion from text makes one, so a name that
/// is known never hides in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OtherName(pub(crate) String);

impl OtherName {
    /// The received name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OtherName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Declares such a list: its type, and each name with its text.
macro_rules! open_names {
    (
        $(#[$about:meta])*
        $type:ident { $($(#[$of_name:meta])* $name:ident = $text:literal,)+ }
    ) => {
        $(#[$about])*
        #[derive(
            Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(from = "String", into = "String")]
        pub enum $type {
            $($(#[$of_name])* $name,)+
            /// A name that this version does not know.
            Other($crate::open_name::OtherName),
        }

        impl $type {
            /// Those that this version knows.
            pub const KNOWN: &'static [Self] = &[$(Self::$name,)+];

            /// Its text in SQL, JSON and messages.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$name => $text,)+
                    Self::Other(name) => name.as_str(),
                }
            }

            fn known(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)+
                    _ => None,
                }
            }
        }

        impl From<String> for $type {
            fn from(text: String) -> Self {
                Self::known(&text)
                    .unwrap_or_else(|| Self::Other($crate::open_name::OtherName(text)))
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                text.to_owned().into()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                match name {
                    $type::Other(name) => name.0,
                    known => known.name().to_owned(),
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

pub(crate) use open_names;
