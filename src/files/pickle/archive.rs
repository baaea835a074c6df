//! The table of contents of a zip archive in memory, for archives whose members are stored and not compressed.
//!
//! Not the `zip` crate: it reserves room for as many members as a header claims (version 9.4 takes any number up to the
//! archive's size in bytes, some hundred bytes each), and all it would do here is to find out where members lie.

use std::collections::HashMap;
use std::ops::Range;

/// A checkpoint has one for each tensor, and the largest have some ten thousand.
const MAX_MEMBERS: u64 = 1 << 20;

/// One file of the archive.
#[derive(Clone, Debug)]
pub struct Member {
    /// Where its content lies in the archive.
    pub range: Range<usize>,
    /// CRC-32 of the content; 0 where the writer did not compute it (`torch.serialization.set_crc32_options(False)`).
    pub crc: u32,
}

/// The members by name. Fails on everything that is not a well-formed archive of stored members.
pub fn members(bytes: &[u8]) -> Result<HashMap<&str, Member>, String> {
    let Directory { range, count } = directory(bytes)?;
    if count > MAX_MEMBERS {
        return Err(format!("is a zip archive of {count} files; a checkpoint has at most {MAX_MEMBERS}"));
    }
    let mut members = HashMap::new();
    let mut at = range.start;
    for i in 0..count {
        let broken = || format!("its list of contents breaks off at entry {i} of {count}");
        let entry = bytes[..range.end].get(at..).filter(|e| e.starts_with(b"PK\x01\x02")).ok_or_else(broken)?;
        let (flags, method) = (u16_at(entry, 8).ok_or_else(broken)?, u16_at(entry, 10).ok_or_else(broken)?);
        let crc = u32_at(entry, 16).ok_or_else(broken)?;
        let name_len = u16_at(entry, 28).ok_or_else(broken)? as usize;
        let extra_len = u16_at(entry, 30).ok_or_else(broken)? as usize;
        let comment_len = u16_at(entry, 32).ok_or_else(broken)? as usize;
        let raw_name = entry.get(46..46 + name_len).ok_or_else(broken)?;
        let extra = entry.get(46 + name_len..46 + name_len + extra_len).ok_or_else(broken)?;
        at += 46 + name_len + extra_len + comment_len;

        let name = std::str::from_utf8(raw_name).map_err(|_| format!("the name of entry {i} is not UTF-8"))?;
        let wide = Wide { small: [u32_at(entry, 24), u32_at(entry, 20), u32_at(entry, 42)], extra };
        let [size, packed_size, offset] = wide.read().ok_or_else(|| format!("the size of '{name}' is missing"))?;
        if flags & 1 != 0 {
            return Err(format!("'{name}' is encrypted"));
        }
        if method != 0 || size != packed_size {
            return Err(format!(
                "'{name}' is compressed; torch.save does not do that: unpack and save it again with torch.save"
            ));
        }
        let range = content(bytes, offset, size, raw_name, range.start)
            .ok_or_else(|| format!("'{name}' does not lie where the list of contents says: damaged or truncated"))?;
        if members.insert(name, Member { range, crc }).is_some() {
            return Err(format!("'{name}' is in the archive twice"));
        }
    }
    Ok(members)
}

struct Directory {
    range: Range<usize>,
    count: u64,
}

/// Finds the list of contents from the record at the end of the archive, and its 64-bit variant before it.
fn directory(bytes: &[u8]) -> Result<Directory, String> {
    const END: usize = 22;
    let truncated = || "is a zip archive without its end: truncated; get the file again".to_string();
    let last = bytes.len().checked_sub(END).ok_or_else(truncated)?;
    // The record is followed only by a comment, whose length it states.
    let end = (last.saturating_sub(u16::MAX as usize)..=last)
        .rev()
        .find(|&at| {
            bytes[at..].starts_with(b"PK\x05\x06")
                && u16_at(bytes, at + 20).map(usize::from) == Some(bytes.len() - at - END)
        })
        .ok_or_else(truncated)?;
    let field = |at| u32_at(bytes, end + at).map(u64::from).ok_or_else(truncated);
    let (mut count, mut size, mut start) =
        (u16_at(bytes, end + 10).ok_or_else(truncated)? as u64, field(12)?, field(16)?);
    let mut stop = end;
    if let Some(locator) = end.checked_sub(20).filter(|&at| bytes[at..].starts_with(b"PK\x06\x07")) {
        let broken = || "the 64-bit record at the end of the zip archive is broken".to_string();
        let at = u64_at(bytes, locator + 8).and_then(|at| usize::try_from(at).ok()).filter(|&at| at < locator);
        let at = at.filter(|&at| bytes[at..].starts_with(b"PK\x06\x06")).ok_or_else(broken)?;
        let field = |offset| u64_at(bytes, at + offset).ok_or_else(broken);
        (count, size, start) = (field(32)?, field(40)?, field(48)?);
        stop = at;
    }
    let start = usize::try_from(start).ok();
    let range = start.zip(usize::try_from(size).ok()).and_then(|(start, size)| Some(start..start.checked_add(size)?));
    match range {
        Some(range) if range.end <= stop => Ok(Directory { range, count }),
        _ => Err("the zip archive's list of contents lies outside the file: damaged or truncated".into()),
    }
}

/// The three numbers of an entry that move to a 64-bit extra field when they are too large: size, packed size, offset.
struct Wide<'a> {
    small: [Option<u32>; 3],
    extra: &'a [u8],
}

impl Wide<'_> {
    fn read(self) -> Option<[u64; 3]> {
        let mut wide: &[u8] = &[];
        let mut rest = self.extra;
        while let (Some(id), Some(len)) = (u16_at(rest, 0), u16_at(rest, 2)) {
            let body = rest.get(4..4 + len as usize)?;
            if id == 1 {
                wide = body;
            }
            rest = &rest[4 + len as usize..];
        }
        let mut numbers = [0; 3];
        for (number, small) in numbers.iter_mut().zip(self.small) {
            *number = match small? {
                u32::MAX => {
                    let number = u64_at(wide, 0)?;
                    wide = &wide[8..];
                    number
                }
                small => small.into(),
            };
        }
        Some(numbers)
    }
}

/// Where the content lies: behind the member's own header, which repeats the name, and before `limit`.
fn content(bytes: &[u8], offset: u64, size: u64, name: &[u8], limit: usize) -> Option<Range<usize>> {
    let header = bytes.get(..limit)?.get(usize::try_from(offset).ok()?..)?;
    let name_len = u16_at(header, 26)? as usize;
    let extra_len = u16_at(header, 28)? as usize;
    if !header.starts_with(b"PK\x03\x04") || header.get(30..30 + name_len)? != name {
        return None;
    }
    let start = (offset as usize).checked_add(30 + name_len + extra_len)?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    (end <= limit).then_some(start..end)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
