//! Newtypes over a register word with named bit fields.

/// Declares a newtype with one getter and one `with_` builder for each field `name [high:low]`.
macro_rules! bit_fields {
    ($(#[$meta:meta])* $name:ident($int:ty) { $($(#[$doc:meta])* $get:ident / $with:ident [$high:literal : $low:literal],)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name(pub $int);

        impl $name {
            $(
                $(#[$doc])*
                #[inline]
                #[must_use]
                pub const fn $get(self) -> $int {
                    (self.0 >> $low) & Self::mask($high - $low + 1)
                }

                $(#[$doc])*
                ///
                /// The same word with this field set; bits that do not fit are dropped.
                #[inline]
                #[must_use]
                pub const fn $with(self, value: $int) -> $name {
                    let mask = Self::mask($high - $low + 1);
                    $name((self.0 & !(mask << $low)) | ((value & mask) << $low))
                }
            )*

            const fn mask(width: u32) -> $int {
                if width >= <$int>::BITS { <$int>::MAX } else { (1 << width) - 1 }
            }
        }
    };
}

pub(crate) use bit_fields;
