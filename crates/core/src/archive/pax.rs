//! The records of a PAX extended header (POSIX.1-2017, `pax`, "pax Extended Header").
//!
//! Written here because `tar::PaxExtensions` splits at line feeds, which a value may hold (a binary
//! extended attribute does), and refuses the rest of such a header.

/// What a walk needs of a PAX header. A later record of a key replaces an earlier one, and an
/// empty value takes it back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    /// The member's name.
    pub(super) path: Option<Vec<u8>>,
    /// How many bytes of data follow the member's header.
    pub(super) size: Option<u64>,
    /// Whether the data is a map of a sparse file and its parts, not the file's own bytes.
    pub(super) sparse: bool,
}

/// Reads `<length> <key>=<value>\n`, again and again; `None` if that is not what the bytes are.
pub(super) fn parse(mut records: &[u8]) -> Option<Pax> {
    let mut pax = Pax::default();
    // NULs after the last record are padding that some writers count in.
    while records.first().is_some_and(|&byte| byte != 0) {
        let space = records.iter().take(20).position(|&byte| byte == b' ')?;
        let length: usize = decimal(records.get(..space)?)?.try_into().ok()?;
        let record = records.get(space.checked_add(1)?..length)?.strip_suffix(b"\n")?;
        records = records.get(length..)?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (record.get(..equals)?, record.get(equals.checked_add(1)?..)?);
        match key {
            b"path" => pax.path = Some(value.to_vec()).filter(|path| !path.is_empty()),
            b"size" if value.is_empty() => pax.size = None,
            b"size" => pax.size = Some(decimal(value)?),
            _ => pax.sparse |= key.starts_with(b"GNU.sparse."),
        }
    }
    Some(pax)
}

/// Digits only: `str::parse` would also take a sign.
fn decimal(digits: &[u8]) -> Option<u64> {
    let all_digits = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all_digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_by_their_length() {
        let pax = parse(b"23 SCHILY.xattr.a=b\nc\n\n18 path=some/name\n11 size=42\n").unwrap();
        assert_eq!((pax.path.as_deref(), pax.size, pax.sparse), (Some(&b"some/name"[..]), Some(42), false));
        assert_eq!(parse(b"").unwrap(), Pax::default());
        assert_eq!(parse(b"9 path=a\n8 path=\n\0\0").unwrap(), Pax::default());
        assert!(parse(b"22 GNU.sparse.major=1\n").unwrap().sparse);
        for bad in [
            &b"9 path=ab\n"[..],
            b"99 path=a\n",
            b"9 path=a",
            b"0 path=a\n",
            b"-9 path=a\n",
            b" path=a\n",
            b"path=a\n",
            b"7 path\n",
            b"12 size=+42\n",
            b"10 size=x\n",
            b"32 size=99999999999999999999999\n",
            b"18446744073709551616 a=b\n",
            b"3 \n",
            b"2 \n",
        ] {
            assert_eq!(parse(bad), None, "{}", bad.escape_ascii());
        }
    }
}
