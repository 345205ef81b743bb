//! Results for programs.

use std::io::{self, Write};

use checkpoint_keeper_core::engine::file::Outcome;
use checkpoint_keeper_core::name::is_unsafe;
use checkpoint_keeper_core::plan::Reason;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use super::inspection::Inspected;
use super::report::Report;

/// Prints the report of one pass.
pub fn report(report: &Report) -> io::Result<()> {
    print(report)
}

/// Prints what was inspected, as a list.
pub fn inspected(inspected: &[Inspected]) -> io::Result<()> {
    print(&inspected)
}

fn print(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    value.serialize(&mut Serializer::with_formatter(&mut out, Plain(PrettyFormatter::new())))?;
    writeln!(out)?;
    out.flush()
}

/// Prints one line of a log.
pub fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(&mut *out, Plain(CompactFormatter)))?;
    writeln!(out)
}

/// JSON in which nothing acts on a terminal that it is printed to, or hides there: what does is written as
/// `\u…`, which reads back as the same text.
struct Plain<F>(F);

impl<F: Formatter> Formatter for Plain<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((begin, character)) = rest.char_indices().find(|(_, character)| is_unsafe(*character))
        {
            self.0.write_string_fragment(out, &rest[..begin])?;
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &rest[begin + character.len_utf8()..];
        }
        self.0.write_string_fragment(out, rest)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

/// One deletion, as a line of a log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    time: Timestamp,
    file: String,
    namespace: Option<String>,
    pod: Option<String>,
    pod_uid: Option<String>,
    container: Option<String>,
    checkpointed_at: Timestamp,
    size_bytes: u64,
    reason: Reason,
    policy: Option<String>,
    detail: String,
    #[serde(flatten)]
    in_cluster: Option<InCluster>,
}

/// What a log of many nodes has to know besides.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InCluster {
    /// The node that the archive lay on.
    pub node: String,
    /// The generation of the policy's object by which it was decided; none where no policy decided.
    pub policy_generation: Option<i64>,
}

impl Deletion {
    /// The same deletion, as one of many nodes'.
    #[must_use]
    pub fn in_cluster(self, in_cluster: InCluster) -> Self {
        Self { in_cluster: Some(in_cluster), ..self }
    }
}

/// What is to be known of a deletion for good.
pub fn deletion(outcome: &Outcome, time: Timestamp) -> Deletion {
    let (archive, verdict) = (&outcome.deletion.archive, &outcome.deletion.verdict);
    let identity = archive.identity.as_deref();
    Deletion {
        time,
        file: archive.file.to_json_text().into_owned(),
        namespace: identity.map(|identity| identity.namespace.clone()),
        pod: identity.map(|identity| identity.pod.clone()),
        pod_uid: identity.and_then(|identity| identity.pod_uid.clone()),
        container: identity.map(|identity| identity.container.clone()),
        checkpointed_at: archive.taken,
        size_bytes: archive.size,
        reason: verdict.reason,
        policy: verdict.policy.as_ref().map(ToString::to_string),
        detail: verdict.detail.to_string(),
        in_cluster: None,
    }
}

/// The names of all that an agent's audit line has.
#[cfg(test)]
pub(crate) fn audit_fields() -> Vec<String> {
    let deletion = Deletion {
        time: Timestamp::UNIX_EPOCH,
        file: String::new(),
        namespace: None,
        pod: None,
        pod_uid: None,
        container: None,
        checkpointed_at: Timestamp::UNIX_EPOCH,
        size_bytes: 0,
        reason: Reason::MaxAge,
        policy: None,
        detail: String::new(),
        in_cluster: Some(InCluster { node: String::new(), policy_generation: None }),
    };
    // As they stand in a line, which a map would sort.
    let line = serde_json::to_string(&deletion).unwrap();
    line.split('"').skip(1).filter(|text| line.contains(&format!("\"{text}\":"))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_act_on_a_terminal_is_escaped_and_reads_back_as_it_was() {
        let evil = "\u{7f}\u{9b}31m\u{202e}\u{2067}\u{200e}\u{2028}\u{2029}\u{1b}\n\u{e0041}\"\\é";
        let value = serde_json::json!({evil: [evil, 1, {}]});
        let mut written = Vec::new();
        line(&mut written, &value).unwrap();
        let mut pretty = Vec::new();
        value.serialize(&mut Serializer::with_formatter(&mut pretty, Plain(PrettyFormatter::new()))).unwrap();
        for written in [written, pretty] {
            let text = String::from_utf8(written).unwrap();
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
            assert!(!text.chars().any(|character| is_unsafe(character) && character != '\n'), "{text}");
            assert!(
                text.contains(r"\u007f\u009b31m\u202e\u2067\u200e\u2028\u2029\u001b\n\udb40\udc41"),
                "{text}"
            );
        }
    }
}
