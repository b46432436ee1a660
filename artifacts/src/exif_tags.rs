//! Reading the tags of an EXIF block (TIFF 6.0 lists of tags, EXIF 2.32).

/// Types of values.
pub(crate) const ASCII: u16 = 2;
pub(crate) const SHORT: u16 = 3;
pub(crate) const LONG: u16 = 4;
pub(crate) const UNDEFINED: u16 = 7;

/// The tag that points to the list of EXIF's own tags.
pub(crate) const EXIF: u16 = 0x8769;
/// Most tags of a list that are looked at.
const MAX_TAGS: u16 = 512;

#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Big => u16::from_be_bytes(bytes),
            Self::Little => u16::from_le_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        }
    }
}

/// The lists of tags of an EXIF block. What is broken is as if it were not there.
pub(crate) struct Tags<'a> {
    block: &'a [u8],
    order: Order,
}

impl<'a> Tags<'a> {
    /// A block as it lies in a file, with or without the six bytes before it in a JPEG.
    pub(crate) fn of(block: &'a [u8]) -> Option<Self> {
        let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
        let order = match block.get(..4)? {
            b"MM\0\x2a" => Order::Big,
            b"II\x2a\0" => Order::Little,
            _ => return None,
        };
        Some(Self { block, order })
    }

    /// The value of a tag in the first list, if it is one number of 16 bits.
    pub(crate) fn first_short(&self, tag: u16) -> Option<u16> {
        let value = self.find(self.u32(4)?, tag, SHORT)?;
        Some(self.order.u16(*<&[u8; 2]>::try_from(value).ok()?))
    }

    /// The value of a tag in the list of EXIF's own tags, as it lies there.
    pub(crate) fn exif(&self, tag: u16) -> Option<&'a [u8]> {
        let pointer = self.find(self.u32(4)?, EXIF, LONG)?;
        let list = self.order.u32(*pointer.first_chunk()?);
        self.find(list, tag, UNDEFINED)
    }

    /// Two bytes of a value as a number.
    pub(crate) fn u16_of(&self, bytes: [u8; 2]) -> u16 {
        self.order.u16(bytes)
    }

    fn find(&self, list: u32, tag: u16, kind: u16) -> Option<&'a [u8]> {
        let list = list as usize;
        let first = list.checked_add(2)?;
        for number in 0..self.u16(list)?.min(MAX_TAGS) {
            let at = first.checked_add(12 * usize::from(number))?;
            if self.u16(at)? != tag || self.u16(at + 2)? != kind {
                continue;
            }
            let size = match kind {
                LONG => 4,
                SHORT => 2,
                _ => 1,
            };
            let length = (self.u32(at + 4)? as usize).checked_mul(size)?;
            let from = if length <= 4 { at + 8 } else { self.u32(at + 8)? as usize };
            return self.block.get(from..from.checked_add(length)?);
        }
        None
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(self.order.u16(*self.block.get(at..)?.first_chunk()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(self.order.u32(*self.block.get(at..)?.first_chunk()?))
    }
}
