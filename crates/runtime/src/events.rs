//! Events of `events.k8s.io/v1`, each an object of its own.
//!
//! kube's recorder takes events of one reason on one object for the same and sends the first note again: what
//! they say in figures is then of no use. Here each note is an event, and who publishes aggregates before.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};

/// The longest note (`events.k8s.io/v1`), in bytes.
const LONGEST_NOTE: usize = 1024;

/// The longest reason, action and reporting instance, in bytes.
const LONGEST_WORD: usize = 128;

/// The longest name of an object.
const LONGEST_NAME: usize = 253;

/// The namespace of events on objects that have none, as everybody's.
const ELSEWHERE: &str = "default";

/// Something to tell of.
#[derive(Debug, Clone)]
pub struct Note {
    /// The object concerned.
    pub about: ObjectReference,
    /// Whether the object is as its author wants it: the event is then of type `Normal`, else `Warning`.
    pub is_good: bool,
    /// Why, in one word.
    pub reason: String,
    /// What was done, in one word.
    pub action: &'static str,
    /// The same in words.
    pub note: String,
}

/// Publishes events.
pub struct Publisher {
    client: Client,
    controller: &'static str,
    instance: String,
    count: AtomicU64,
}

impl Publisher {
    /// A publisher that goes by this name; `instance` is the replica, or the node.
    pub fn new(client: Client, controller: &'static str, instance: String) -> Self {
        Self { client, controller, instance, count: AtomicU64::new(0) }
    }

    /// Creates an event.
    pub async fn publish(&self, note: Note) -> kube::Result<()> {
        let now = Timestamp::now();
        // Of two that are made at one moment, by one program or several.
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let event = event(note, (self.controller, &self.instance), number, now);
        let namespace = event.metadata.namespace.as_deref().unwrap_or(ELSEWHERE);
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        api.create(&PostParams::default(), &event).await.map(|_| ())
    }
}

fn event(note: Note, (controller, instance): (&str, &str), number: u64, now: Timestamp) -> Event {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (controller, instance, number).hash(&mut hasher);
    let suffix = format!(".{:x}.{:x}", now.as_nanosecond(), hasher.finish());
    let about = cut(note.about.name.as_deref().unwrap_or("unknown"), LONGEST_NAME - suffix.len());
    // A part of a name ends with a letter or a digit.
    let name = format!("{}{suffix}", about.trim_end_matches(['.', '-']));
    let namespace = note.about.namespace.clone().unwrap_or_else(|| ELSEWHERE.to_owned());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(controller.to_owned()),
        reporting_instance: Some(cut(instance, LONGEST_WORD).to_owned()),
        action: Some(note.action.to_owned()),
        reason: Some(cut(&note.reason, LONGEST_WORD).to_owned()),
        type_: Some(if note.is_good { "Normal" } else { "Warning" }.to_owned()),
        note: Some(cut(&note.note, LONGEST_NOTE).to_owned()),
        regarding: Some(note.about),
        ..Event::default()
    }
}

fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, instance: &str, note: &str, number: u64) -> Event {
        let about = ObjectReference {
            name: Some(name.to_owned()),
            uid: Some("u".to_owned()),
            ..ObjectReference::default()
        };
        let note = Note {
            about,
            is_good: true,
            reason: "MaxAge".to_owned(),
            action: "DeleteArchives",
            note: note.to_owned(),
        };
        event(note, ("checkpoint-keeper-agent", instance), number, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn each_note_is_an_event_of_its_own_and_within_what_the_api_takes() {
        let (first, second) = (made("a", "n", "Deleted 1", 0), made("a", "n", "Deleted 499", 1));
        assert_ne!(first.metadata.name, second.metadata.name);
        assert_eq!(second.note.as_deref(), Some("Deleted 499"));
        assert_eq!(second.regarding.and_then(|about| about.uid).as_deref(), Some("u"));
        assert_eq!(second.metadata.namespace.as_deref(), Some("default"));
        let other = made("a", "m", "Deleted 1", 0);
        assert_ne!(first.metadata.name, other.metadata.name, "another node, at the same moment");
        let name = format!("{}-{}", "x".repeat(204), "y".repeat(48));
        let long = made(&name, &"n".repeat(253), &"ü".repeat(1_000), u64::MAX);
        let name = long.metadata.name.unwrap();
        assert!(name.len() <= LONGEST_NAME && !name.contains("-."), "{name}");
        assert_eq!(long.reporting_instance.unwrap().len(), LONGEST_WORD);
        assert_eq!(long.note.unwrap().len(), LONGEST_NOTE);
    }
}
