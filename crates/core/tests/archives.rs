//! What is read from archives: the real ones, the odd ones, and how many bytes that may take.

#![allow(
    clippy::unwrap_used,
    reason = "the clippy.toml exemption covers test functions only, not what they share"
)]

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use checkpoint_keeper_core::archive::{self, Contents, Engine, Format, Inspection, ReadOptions, State};
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_testkit::{ArchiveBuilder, Dialect};

fn read(bytes: &[u8]) -> Contents {
    inspect(bytes).contents
}

fn inspect(bytes: &[u8]) -> Inspection {
    let read = archive::read(&mut Cursor::new(bytes)).unwrap();
    let inspection = archive::inspect(&mut Cursor::new(bytes)).unwrap();
    assert_eq!(inspection.contents, read, "the two ways in have to agree");
    inspection
}

fn real(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../tests/archives/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn web() -> ArchiveBuilder {
    ArchiveBuilder::new("shop", "web-0", "server")
}

fn who(contents: &Contents) -> Option<String> {
    let id = contents.identity.as_ref()?;
    let uid = id.pod_uid.as_deref().unwrap_or("-");
    Some(format!("{}/{}/{} {uid}", id.namespace, id.pod, id.container))
}

/// One member as it is on disk: any type flag, any size.
fn member(kind: u8, name: &str, size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    member(b'0', name, data.len() as u64, data)
}

fn tarball(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

const CONFIG: &[u8] = br#"{"name":"server_web-0_shop_5744a2df-d174-487a-aa0c-c20695010502_0"}"#;
const SPEC: &[u8] = br#"{"annotations":{}}"#;

/// CRIU's images without which nothing can be restored.
fn images() -> Vec<u8> {
    [file("checkpoint/inventory.img", b"i"), file("checkpoint/pstree.img", b"p")].concat()
}

/// A whole archive after some other members.
fn after(members: &[Vec<u8>]) -> Vec<u8> {
    tarball(&[members, &[file("config.dump", CONFIG), file("spec.dump", SPEC), images()]].concat())
}

#[track_caller]
fn assert_state(bytes: &[u8], state: State, problem: &str) {
    let contents = read(bytes);
    assert_eq!((contents.state, contents.problem.as_deref()), (state, Some(problem)));
    if !matches!(state, State::Complete | State::NoImages | State::Incomplete) {
        assert_eq!(contents.identity, None);
    }
}

struct Real {
    file: &'static str,
    who: Option<&'static str>,
    at: Option<&'static str>,
    runtime: &'static str,
    engine: Engine,
    format: Format,
    members: u64,
    id: &'static str,
    created: &'static str,
    frozen: u32,
    written: u64,
}

#[test]
fn real_archives_are_read() {
    let busybox = "registry.example/demo/busybox:1";
    let web = "shop/web-b97f476fd-5dfj4/server 5744a2df-d174-487a-aa0c-c20695010502";
    let web_crio = "shop/web-b97f476fd-7f4gx/server 16c303df-669d-4328-a8c9-4a9f34680195";
    let containerd = Real {
        file: "checkpoint-web-b97f476fd-5dfj4_shop-server-2026-11-22T15:59:42Z.tar",
        who: Some(web),
        at: Some("2026-11-22T15:59:42.526011667Z"),
        runtime: "io.containerd.runc.v2",
        engine: Engine::Containerd,
        format: Format::Tar,
        members: 37,
        id: "6f599102",
        created: "2026-11-22T15:59:10.148189092Z",
        frozen: 133_391,
        written: 33,
    };
    let crio = Real {
        file: "checkpoint-web-b97f476fd-7f4gx_shop-server-2026-11-22T16:00:18Z.tar",
        who: Some(web_crio),
        at: Some("2026-11-22T16:00:18.578099263Z"),
        runtime: "runc",
        engine: Engine::CriO,
        members: 36,
        id: "e12de88f",
        created: "2026-11-22T16:00:00.449297058Z",
        frozen: 158_085,
        written: 34,
        ..containerd
    };
    let podman = Real {
        file: "ledger-gzip.tar",
        who: None,
        at: None,
        runtime: "/usr/sbin/runc",
        engine: Engine::Podman,
        format: Format::Gzip,
        members: 41,
        id: "b9ce038c",
        created: "2026-11-22T16:01:04.440263327Z",
        frozen: 133_890,
        written: 35,
    };
    let table = [
        Real {
            file: "checkpoint-web-b97f476fd-5dfj4_shop-server-2026-11-22T15:59:44Z.tar",
            at: Some("2026-11-22T15:59:44.445780545Z"),
            frozen: 150_598,
            ..containerd
        },
        Real {
            file: "checkpoint-db-0_shop-eu-proxy-2026-11-22T15:59:46Z.tar",
            who: Some("shop-eu/db-0/proxy e8f4d4ff-7d16-4cdd-a9bd-8d5d37e77a65"),
            at: Some("2026-11-22T15:59:46.507168732Z"),
            id: "d0897113",
            created: "2026-11-22T15:59:10.339736234Z",
            frozen: 142_688,
            written: 34,
            ..containerd
        },
        Real {
            file: "checkpoint-web-b97f476fd-7f4gx_shop-server-2026-11-22T16:00:20Z.tar",
            at: Some("2026-11-22T16:00:20.500517897Z"),
            frozen: 146_790,
            ..crio
        },
        Real {
            file: "checkpoint-db-0_shop-eu-engine-2026-11-22T16:00:22Z.tar",
            who: Some("shop-eu/db-0/engine 30c9988f-276f-4e36-94fb-efde075c60ab"),
            at: Some("2026-11-22T16:00:22.182450533Z"),
            id: "9ca8c3f9",
            created: "2026-11-22T16:00:00.641063722Z",
            frozen: 130_996,
            written: 396,
            ..crio
        },
        Real { file: "ledger-zstd.tar", format: Format::Zstd, members: 36, frozen: 149_763, ..podman },
        containerd,
        crio,
        podman,
    ];
    for wanted in table {
        let file = wanted.file;
        let found = inspect(&real(file));
        let contents = &found.contents;
        assert_eq!((contents.state, &contents.problem), (State::Complete, &None), "{file}");
        assert_eq!(who(contents).as_deref(), wanted.who, "{file}");
        assert_eq!(contents.checkpointed_at.map(|at| at.to_string()).as_deref(), wanted.at, "{file}");
        assert_eq!(contents.runtime.as_deref(), Some(wanted.runtime), "{file}");
        assert_eq!(contents.image.as_deref(), Some(busybox), "{file}");
        assert_eq!((found.engine, found.format), (Some(wanted.engine), wanted.format), "{file}");
        assert_eq!(found.members, wanted.members, "{file}");
        assert!(found.container_id.unwrap().starts_with(wanted.id), "{file}");
        assert!(found.image_ref.is_some(), "{file}");
        let created = found.created_at.map(|at| at.to_string());
        assert_eq!(created.as_deref(), Some(wanted.created), "{file}");
        assert_eq!(found.restart_count, wanted.who.map(|_| 0), "{file}");
        assert_eq!(found.restored_at, None, "{file}");
        let statistics = found.statistics.unwrap();
        assert_eq!(statistics.frozen_time, wanted.frozen, "{file}");
        assert_eq!(statistics.pages_written, wanted.written, "{file}");
    }
    let engine = Engine::CriO;
    assert_eq!(format!("{engine} {}", serde_json::to_string(&engine).unwrap()), "CRI-O \"CRI-O\"");
}

#[test]
fn a_disk_that_was_full_leaves_an_incomplete_archive() {
    let cut = real("checkpoint-db-0_shop-eu-engine-2026-11-22T15:59:46Z.tar");
    assert_state(&cut, State::Incomplete, "ends within a member's data");
    assert_state(b"", State::Incomplete, "is empty");
    assert_state(b"checkpoint", State::Incomplete, "is shorter than a tar's first header");
    assert_state(&[0; 511], State::Incomplete, "is shorter than a tar's first header");
    assert_state(&[0; 512], State::Incomplete, "ends within a tar's end mark");
    assert_state(&[0; 1023], State::Incomplete, "ends within a tar's end mark");
    assert_state(&[0; 1024], State::Incomplete, "has neither config.dump nor spec.dump");
    let whole = web().build().unwrap();
    assert_state(&whole[..whole.len() - 1024], State::Incomplete, "ends without a tar's end mark");
    assert_state(&whole[..whole.len() - 512], State::Incomplete, "ends within a tar's end mark");
    assert_state(&whole[..whole.len() - 1], State::Incomplete, "ends within a tar's end mark");
    assert_state(&whole[..512], State::Incomplete, "ends without a tar's end mark");
    assert_state(&whole[..700], State::Incomplete, "ends within a header");
    for missing in ["config.dump", "spec.dump"] {
        let problem = format!("has no {missing}");
        assert_state(&web().without(missing).build().unwrap(), State::Incomplete, &problem);
    }
    // A member's padding is part of it, and what follows the end mark is of no interest.
    let padding = [file("config.dump", CONFIG), file("spec.dump", SPEC)].concat();
    assert_state(&padding[..padding.len() - 1], State::Incomplete, "ends within a member's data");
    for tail in [vec![0; 9000], vec![0xa5; 700], whole.clone()] {
        assert_eq!(read(&[whole.clone(), tail].concat()).state, State::Complete);
    }
}

#[test]
fn what_was_read_before_the_end_still_counts() {
    let whole = real("checkpoint-web-b97f476fd-5dfj4_shop-server-2026-11-22T15:59:42Z.tar");
    let contents = read(&whole[..whole.len() - 600]);
    assert_eq!(contents.state, State::Incomplete);
    assert!(who(&contents).unwrap().starts_with("shop/web-b97f476fd-5dfj4/server"));
    assert!(contents.checkpointed_at.is_some());
    // Without spec.dump, the runtime's name does.
    let contents = read(&web().without("spec.dump").build().unwrap());
    assert!(who(&contents).unwrap().starts_with("shop/web-0/server"));
    // Without config.dump nobody is believed: annotations alone are the tenant's to write.
    let contents = read(&web().without("config.dump").build().unwrap());
    assert_eq!((contents.state, who(&contents)), (State::Incomplete, None));
}

#[test]
fn what_holds_nothing_of_a_checkpoint_is_not_called_incomplete() {
    let problem = "holds nothing of a checkpoint";
    assert_state(&tarball(&[file("weights.bin", b"w")]), State::Foreign, problem);
    assert_state(&file("weights.bin", &[b'w'; 5_000])[..2_000], State::Foreign, problem);
    assert_state(&tarball(&[file("sub/checkpoint/x", b"")]), State::Foreign, problem);
    assert_state(b"my notes", State::Foreign, "not a tar archive");
    assert_state(b"c", State::Incomplete, "is shorter than a tar's first header");
    assert_state(
        &tarball(&[file("./checkpoint/x", b"")]),
        State::Incomplete,
        "has neither config.dump nor spec.dump",
    );
}

#[test]
fn what_is_no_tar_is_foreign() {
    assert_state(&[b'x'; 512], State::Foreign, "not a tar archive");
    assert_state(&[vec![b'x'; 4096], vec![0; 1024]].concat(), State::Foreign, "not a tar archive");
    let half_end = [file("a", b""), vec![0; 512], file("b", b"")].concat();
    let problem = "goes on after half of a tar's end mark";
    assert_state(&half_end, State::Foreign, problem);
    assert_state(&[vec![0; 512], vec![1; 512]].concat(), State::Foreign, problem);
    let mut bent = after(&[file("a", b"data")]);
    bent[1024 + 5] ^= 1;
    assert_state(&bent, State::Damaged, "a tar header's checksum is wrong");
}

#[test]
fn an_archive_without_crius_images_is_no_complete_one() {
    for (missing, first) in [
        (&["checkpoint/inventory.img"][..], "inventory"),
        (&["checkpoint/pstree.img"], "pstree"),
        (&["checkpoint/inventory.img", "checkpoint/pstree.img", "checkpoint/pages-1.img"], "inventory"),
    ] {
        let archive = missing.iter().fold(web(), |archive, name| archive.without(name));
        let problem = format!("has no checkpoint/{first}.img, so nothing can be restored");
        for bytes in [archive.build().unwrap(), archive.gzip().unwrap(), archive.zstd().unwrap()] {
            assert_state(&bytes, State::NoImages, &problem);
            // It is known whose it is all the same, so that it counts and goes where it belongs.
            let contents = read(&bytes);
            assert!(who(&contents).unwrap().starts_with("shop/web-0/server"));
            assert!(contents.checkpointed_at.is_some());
        }
        assert_eq!(read(&archive.truncate(600).build().unwrap()).state, State::Incomplete);
    }
    // Under another name, as a directory or empty, an image is none.
    let json = [file("config.dump", CONFIG), file("spec.dump", SPEC)].concat();
    let pstree = file("./checkpoint/pstree.img", b"p");
    for (inventory, state) in [
        (file("./checkpoint/inventory.img", b"i"), State::Complete),
        (file("checkpoint/inventory.img.bak", b"i"), State::NoImages),
        (file("checkpoint/sub/inventory.img", b"i"), State::NoImages),
        (file("inventory.img", b"i"), State::NoImages),
        (file("checkpoint/inventory.img", b""), State::NoImages),
        (member(b'5', "checkpoint/inventory.img", 1, b""), State::NoImages),
        (member(b'2', "checkpoint/inventory.img", 1, b""), State::NoImages),
    ] {
        assert_eq!(read(&tarball(&[pstree.clone(), json.clone(), inventory])).state, state);
    }
}

#[test]
fn an_archive_that_contradicts_itself_is_damaged() {
    let wrong = "a tar header's checksum is wrong";
    // One that was written over a longer one, as the runtimes do, and cut off.
    let long = web().pages(40_000).build().unwrap();
    let short = web().pages(20_000).build().unwrap();
    assert_state(&[&short[..9_000], &long[9_000..]].concat(), State::Damaged, wrong);
    // Its seam within zeros looks like the end.
    let zeros = web().pages(vec![0; 40_000]).build().unwrap();
    let early = "goes on after a tar's end mark that comes too early";
    assert_state(&[&short[..9_000], &zeros[9_000..]].concat(), State::Damaged, early);

    // One bit in any byte of a header, the first one's included: of every runtime.
    for dialect in [Dialect::Containerd, Dialect::CriO, Dialect::Podman] {
        let whole = web().dialect(dialect).build().unwrap();
        let mut at = 0;
        while whole[at] != 0 {
            let size = tar::Header::from_byte_slice(&whole[at..at + 512]).entry_size().unwrap();
            // But for what begins and ends the checksum's own field, which is no part of the number.
            for byte in (0..148).chain(149..154).chain(156..512) {
                let mut bent = whole.clone();
                bent[at + byte] ^= 1 << (byte % 8);
                assert_state(&bent, State::Damaged, wrong);
            }
            // The whole header zeroed, as a disk leaves what it lost.
            let mut lost = whole.clone();
            lost[at..at + 512].fill(0);
            // Zeros behind both JSON members and the images could be the end as well.
            let seems_to_end = dialect != Dialect::Containerd && whole[at..].starts_with(b"rootfs-diff.tar");
            let state = if seems_to_end { State::Complete } else { State::Damaged };
            assert_eq!(read(&lost).state, state, "{dialect:?} at {at}");
            at += 512 + usize::try_from(size.next_multiple_of(512)).unwrap();
        }
    }

    // Zeros in place of a JSON member, to its end or to its block's.
    for name in ["config.dump", "spec.dump"] {
        let mut whole = web().build().unwrap();
        let at = (0..whole.len()).step_by(512).find(|&at| whole[at..].starts_with(name.as_bytes())).unwrap();
        whole[at + 512..at + 1024].fill(0);
        assert_state(&whole, State::Damaged, &format!("{name} is not a JSON object"));
    }
}

#[test]
fn zeros_before_something_else_are_no_checkpoint_that_was_cut_off() {
    // What a crash leaves: cut off, and zeros up to the size that the file had.
    assert_state(&vec![0; 60_000], State::Incomplete, "has neither config.dump nor spec.dump");
    let whole = web().build().unwrap();
    let crashed = [&whole[..8_000], &vec![0; 60_000]].concat();
    assert_state(&crashed, State::Incomplete, "has neither config.dump nor spec.dump");
    // A disk's image begins with zeros, too.
    for zeros in [512, 1024, 32 << 10] {
        let image = [vec![0; zeros], b"CD001".repeat(400)].concat();
        assert_eq!(read(&image).state, State::Foreign, "{zeros}");
    }
    let lost = [vec![0; 4 << 10], whole].concat();
    assert_eq!(read(&lost).state, State::Damaged);
    // A header that is wrong, and nothing behind it, is not enough.
    let mut notes = tarball(&[file("notes", b"abc"), file("more-notes", b"abc")]);
    notes[3] ^= 1;
    assert_state(&notes, State::Foreign, "not a tar archive");
}

#[test]
fn sizes_cannot_be_used_to_lead_a_walk_astray() {
    let sized = |field: &[u8; 12]| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..8].copy_from_slice(b"dump.log");
        header.set_entry_type(tar::EntryType::Regular);
        header.as_old_mut().size = *field;
        header.set_cksum();
        after(&[header.as_bytes().to_vec()])
    };
    let range = "a member's size is out of range";
    assert_state(&sized(&[0xff; 12]), State::Damaged, range);
    assert_state(&sized(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"), State::Damaged, range);
    assert_state(&sized(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), State::Damaged, range);
    let past = "ends within a member's data";
    assert_state(&sized(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xfe\0"), State::Incomplete, past);
    assert_state(&sized(b"77777777777\0"), State::Incomplete, past);
    assert_state(&sized(b"no number!!\0"), State::Damaged, "a member's size is not a number");
    assert_eq!(read(&sized(b"\x80\0\0\0\0\0\0\0\0\0\0\0")).state, State::Complete);
    assert_eq!(read(&sized(b"\0\0\0\0\0\0\0\0\0\0\0\0")).state, State::Complete);
    // Links and directories have no data, whatever they say.
    for kind in b"123456" {
        assert_eq!(read(&after(&[member(*kind, "a", 1 << 40, b"")])).state, State::Complete);
    }
}

#[test]
fn only_the_exact_names_count() {
    for good in ["config.dump", "./config.dump"] {
        let bytes = tarball(&[images(), file(good, CONFIG), file("./spec.dump", SPEC)]);
        assert_eq!(read(&bytes).state, State::Complete, "{good}");
    }
    for bad in [
        "sub/config.dump",
        "evil-config.dump",
        "../config.dump",
        "/config.dump",
        "././config.dump",
        "config.dump/",
        "config.dump.bak",
        "Config.dump",
        "checkpoint/../config.dump",
        ".\\config.dump",
    ] {
        let bytes = tarball(&[file(bad, CONFIG), file("spec.dump", SPEC)]);
        assert_state(&bytes, State::Incomplete, "has no config.dump");
        let decoy = br#"{"name":"c_evil_victim_5744a2df-d174-487a-aa0c-c20695010502_0"}"#;
        let contents = read(&after(&[file(bad, decoy)]));
        assert_eq!(
            who(&contents).as_deref(),
            Some("shop/web-0/server 5744a2df-d174-487a-aa0c-c20695010502"),
            "{bad}"
        );
    }
}

#[test]
fn a_json_member_is_one_regular_file_of_sane_size() {
    for kind in [0, b'0', b'7'] {
        let bytes = tarball(&[
            images(),
            member(kind, "config.dump", CONFIG.len() as u64, CONFIG),
            member(kind, "spec.dump", SPEC.len() as u64, SPEC),
        ]);
        assert_eq!(read(&bytes).state, State::Complete, "{kind}");
    }
    for name in ["config.dump", "./spec.dump"] {
        let short = name.trim_start_matches("./");
        for kind in b"123456SDMV" {
            let bytes = after(&[member(*kind, name, 0, b"")]);
            assert_state(&bytes, State::Damaged, &format!("{short} is not a regular file"));
        }
        let bytes = after(&[file(name, b"{}"), file("x", b"")]);
        assert_state(&bytes, State::Damaged, &format!("{short} is there twice"));
        let bytes = after(&[member(b'0', name, (16 << 20) + 1, b"")]);
        assert_state(&bytes, State::Foreign, &format!("{short} is over 16 MiB"));
    }
    let sparse = b"22 GNU.sparse.major=1\n";
    let bytes = after(&[member(b'x', "pax", sparse.len() as u64, sparse)]);
    assert_state(&bytes, State::Damaged, "config.dump is not a regular file");

    let mut large = b"{\"annotations\":{}".to_vec();
    large.resize((16 << 20) - 1, b' ');
    large.push(b'}');
    let bytes = web().spec_json(large).build().unwrap();
    assert_eq!(read(&bytes).state, State::Complete, "16 MiB are still read");
}

#[test]
fn json_that_is_none_is_not_guessed_at() {
    let deep = [vec![b'['; 1 << 20], vec![b']'; 1 << 20]].concat();
    for bad in [&b""[..], b"{", b"null", b"[]", b"7", b"{}{}", b"\xff", b"{\"a\xff\":1}", &deep] {
        let bytes = web().config_json(bad).build().unwrap();
        assert_state(&bytes, State::Damaged, "config.dump is not a JSON object");
        // Also where the runtime's name would decide: nothing is restored without spec.dump.
        for archive in [web(), web().runtime_name(Some("ledger"))] {
            let bytes = archive.spec_json(bad).build().unwrap();
            assert_state(&bytes, State::Damaged, "spec.dump is not a JSON object");
        }
    }
    // A name that is not JSON may have said anything: not the truncation's fault.
    let cut = web().config_json("{").truncate(1024).build().unwrap();
    assert_state(&cut, State::Damaged, "config.dump is not a JSON object");
}

#[test]
fn fields_of_a_wrong_type_are_not_there() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for value in ["null", "7", "-1.5e3", "true", "{\"a\":[1]}", "[\"a\"]", "\"\"", &deep] {
        let config = format!(
            r#"{{"id":{value},"name":{value},"rootfsImageName":{value},"runtime":{value},
                "checkpointedTime":{value},"createdTime":{value},"unknown":{value}}}"#
        );
        let found = inspect(&web().config_json(config).build().unwrap());
        assert_eq!(found.contents.state, State::Complete);
        assert_eq!((found.contents.image, found.contents.runtime), (None, None));
        assert_eq!((found.contents.checkpointed_at, found.container_id), (None, None));
        // containerd's annotations still say who it is.
        assert!(found.contents.identity.is_some());

        let spec = format!(
            r#"{{"process":{value},"annotations":{{"io.kubernetes.cri.sandbox-uid":{value},
                "io.kubernetes.cri.sandbox-namespace":"a","x":{value},"io.kubernetes.cri.sandbox-name":"b",
                "io.kubernetes.cri.container-name":"c"}}}}"#
        );
        let contents = read(&web().runtime_name(None).spec_json(spec).build().unwrap());
        assert_eq!((contents.state, contents.problem.as_ref()), (State::Complete, None));
        assert_eq!(who(&contents).as_deref(), Some("a/b/c -"), "{}", &value[..4.min(value.len())]);
        let spec = format!(r#"{{"annotations":{value}}}"#);
        let contents = read(&web().runtime_name(None).spec_json(spec).build().unwrap());
        assert_eq!((contents.state, contents.identity), (State::Complete, None));
    }
    // As in Go, the last of two counts.
    let twice = r#"{"name":"x","name":"server_web-0_shop_5744a2df-d174-487a-aa0c-c20695010502_0","name2":1}"#;
    let contents = read(&web().config_json(twice).without("spec.dump").build().unwrap());
    assert_eq!(who(&contents).as_deref(), Some("shop/web-0/server 5744a2df-d174-487a-aa0c-c20695010502"));
    let spec = r#"{"annotations":{"io.kubernetes.cri.sandbox-namespace":"a"},"annotations":{}}"#;
    let contents = read(&web().runtime_name(None).spec_json(spec).build().unwrap());
    assert_eq!(contents.identity, None);
}

#[test]
fn times_that_are_none_are_not_there() {
    let at = |time: &str| read(&web().at(time).build().unwrap()).checkpointed_at.map(|at| at.to_string());
    assert_eq!(at("2026-11-22T16:59:42.5+01:00").as_deref(), Some("2026-11-22T15:59:42.5Z"));
    for none in ["0001-01-01T00:00:00Z", "", "yesterday", "10000-01-01T00:00:00Z", "2026-11-22"] {
        assert_eq!(at(none), None, "{none}");
    }
}

#[test]
fn every_dialect_is_read_and_the_runtimes_name_decides() {
    let uid = "5744a2df-d174-487a-aa0c-c20695010502";
    for dialect in [Dialect::Containerd, Dialect::CriO, Dialect::Checkpointctl] {
        let full = format!("shop/web-0/server {uid}");
        let archive = web().dialect(dialect);
        assert_eq!(who(&read(&archive.build().unwrap())), Some(full.clone()), "{dialect:?}");
        let nameless = archive.clone().runtime_name(None).build().unwrap();
        assert_eq!(who(&read(&nameless)), Some(full.clone()), "{dialect:?}");
        let odd = archive.clone().runtime_name(Some("a_b_c")).build().unwrap();
        assert_eq!(who(&read(&odd)), Some(full), "{dialect:?}");
        // A pod's own annotations, copied among the runtime's, change nothing.
        let forged = archive
            .runtime_name(Some("k8s_server_web-0_shop_5744a2df-d174-487a-aa0c-c20695010502_0"))
            .annotation("io.kubernetes.cri-o.Labels", r#"{"io.kubernetes.pod.namespace":"victim"}"#)
            .annotation("io.kubernetes.pod.namespace", "victim")
            .annotation("io.kubernetes.cri.sandbox-namespace", "*")
            .annotation("org.criu.checkpoint.pod.namespace", "victim");
        let contents = read(&forged.build().unwrap());
        assert_eq!(
            who(&contents).as_deref(),
            Some("shop/web-0/server 5744a2df-d174-487a-aa0c-c20695010502"),
            "{dialect:?}"
        );
    }
    let empty = web().dialect(Dialect::CriO).runtime_name(None).annotation("io.kubernetes.cri-o.Labels", "");
    assert!(who(&read(&empty.build().unwrap())).unwrap().starts_with("shop/web-0/server"));
    for (key, value) in [("sandbox-name", ""), ("sandbox-namespace", "*"), ("container-name", "a/b")] {
        let bad = web().runtime_name(None).annotation(&format!("io.kubernetes.cri.{key}"), value);
        let contents = read(&bad.build().unwrap());
        assert_eq!((contents.state, contents.identity), (State::Complete, None), "{key}");
    }
    let podman = inspect(&web().dialect(Dialect::Podman).build().unwrap());
    assert_eq!(podman.contents.identity, None);
    assert_eq!((podman.contents.state, podman.engine), (State::Complete, Some(Engine::Podman)));
}

#[test]
fn what_podman_wrote_is_of_no_pod() {
    let podman = |name: &str| web().dialect(Dialect::Podman).runtime_name(Some(name));
    let uid = "5744a2df-d174-487a-aa0c-c20695010502";
    // podman-compose's names have as many parts as a pod's, and a user may name a container like one.
    for name in ["my_app_redis_1", "my_app_web_api_1", "k8s_my_app_web_api_1", &format!("c_p_n_{uid}_0")] {
        let found = inspect(&podman(name).build().unwrap());
        assert_eq!((found.contents.state, &found.contents.identity), (State::Complete, &None), "{name}");
        assert_eq!(found.restart_count, None, "{name}");
    }
    // Annotations are its user's own.
    for (namespace, pod, container) in [
        ("io.kubernetes.pod.namespace", "io.kubernetes.pod.name", "io.kubernetes.container.name"),
        (
            "io.kubernetes.cri.sandbox-namespace",
            "io.kubernetes.cri.sandbox-name",
            "io.kubernetes.cri.container-name",
        ),
        (
            "org.criu.checkpoint.pod.namespace",
            "org.criu.checkpoint.pod.name",
            "org.criu.checkpoint.container.name",
        ),
    ] {
        let annotated = |archive: ArchiveBuilder| {
            archive
                .annotation(namespace, "n")
                .annotation(pod, "p")
                .annotation(container, "c")
                .build()
                .unwrap()
        };
        assert_eq!(read(&annotated(podman("c"))).identity, None, "{namespace}");
        // The mark of a pod's owner among the annotations of a CRI runtime changes nothing.
        let marked = web().annotation("io.container.manager", "libpod");
        assert!(who(&read(&annotated(marked))).unwrap().starts_with("shop/web-0/server"));
    }
    // The same names without any mark: podman-compose's are none of a pod, whoever writes them.
    assert_eq!(
        read(&web().runtime_name(Some("my_app_web_api_1")).spec_json(SPEC).build().unwrap()).identity,
        None
    );
}

#[test]
fn where_name_and_labels_speak_of_two_containers_the_name_decides() {
    let labels = r#"{"io.kubernetes.container.name":"containername","io.kubernetes.pod.name":"podname",
        "io.kubernetes.pod.namespace":"namespace"}"#;
    let contents = read(
        &web()
            .dialect(Dialect::CriO)
            .runtime_name(Some(
                "k8s_container-name_deployment-name_default_5744a2df-d174-487a-aa0c-c20695010502_0",
            ))
            .annotation("io.kubernetes.cri-o.Labels", labels)
            .build()
            .unwrap(),
    );
    assert!(who(&contents).unwrap().starts_with("default/deployment-name/container-name "));
}

fn pax(records: &[u8]) -> Vec<u8> {
    member(b'x', "pax", records.len() as u64, records)
}

#[test]
fn long_names_and_pax_headers_are_understood() {
    let config =
        |before: Vec<u8>, name: &str| tarball(&[before, file(name, CONFIG), file("spec.dump", SPEC)]);
    let identity = |bytes: &[u8]| read(bytes).identity.map(|id: Identity| id.pod);
    let long = |name: &[u8]| member(b'L', "././@LongLink", name.len() as u64, name);
    let pod = Some("web-0".to_owned());
    assert_eq!(identity(&config(long(b"config.dump\0"), "x")), pod);
    assert_eq!(identity(&config(pax(b"20 path=config.dump\n"), "x")), pod);
    assert_eq!(identity(&config(long(b"config.dump\0junk"), "x")), pod);
    assert_eq!(identity(&config(member(b'K', "link", 3, b"abc"), "config.dump")), pod);
    assert_eq!(identity(&config(member(b'g', "pax", 20, b"20 path=config.dump\n"), "x")), None);
    // The name that the extension gives is the one that counts, also when that is another one.
    assert_eq!(identity(&config(long(b"other\0"), "config.dump")), None);
    assert_eq!(identity(&config(pax(b"14 path=other\n"), "config.dump")), None);
    let both = [pax(b"14 path=other\n"), long(b"config.dump\0")].concat();
    assert_eq!(identity(&config(both, "x")), pod);
    // It is for the next member only.
    let spent = [long(b"other\0"), file("x", b"data")].concat();
    assert_eq!(identity(&config(spent, "config.dump")), pod);
    // Binary attributes hold line feeds.
    let attribute = pax(b"40 SCHILY.xattr.security.capability=\n\n\n\n");
    assert_eq!(identity(&config(attribute, "config.dump")), pod);

    // The size in a PAX header is the one that is stored.
    let records = b"13 size=1024\n";
    let resized = [pax(records), member(b'0', "pages", 7, &[7; 1024])].concat();
    assert_eq!(read(&after(&[resized])).state, State::Complete);
    let huge = [pax(b"28 size=18446744073709551615\n"), file("pages", b"")].concat();
    let range = "a member's size is out of range";
    assert_state(&after(std::slice::from_ref(&huge)), State::Foreign, "a PAX header is malformed");
    assert_state(&after(&[images(), huge]), State::Damaged, "a PAX header is malformed");
    let huge = [pax(b"29 size=18446744073709551615\n"), file("pages", b"")].concat();
    assert_state(&after(&[images(), huge]), State::Damaged, range);

    let big = (1 << 20) + 1;
    let problem = "a member's long name or PAX header is over 1 MiB";
    for kind in [b'L', b'x'] {
        assert_state(&after(&[member(kind, "x", big, b"")]), State::Foreign, problem);
        assert_state(
            &after(&[member(kind, "x", 1 << 20, b"")]),
            State::Incomplete,
            "ends within a member's data",
        );
    }
    let many = vec![member(b'L', "x", 600 << 10, &vec![b'n'; 600 << 10]); 2];
    assert_state(&after(&many), State::Foreign, "has too many extended headers");
}

#[test]
fn sparse_members_are_passed_over() {
    let sparse = |extensions: usize| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..16].copy_from_slice(b"checkpoint/pages");
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(700);
        header.as_gnu_mut().unwrap().set_is_extended(extensions > 0);
        header.as_gnu_mut().unwrap().set_real_size(1 << 40);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        for n in 1..=extensions {
            let mut block = [b'1'; 512];
            block[504] = u8::from(n < extensions);
            bytes.extend_from_slice(&block);
        }
        bytes.resize(bytes.len() + 1024, 7);
        bytes
    };
    for extensions in [0, 1, 5] {
        assert_eq!(read(&after(&[sparse(extensions)])).state, State::Complete, "{extensions}");
    }
    let cut = &sparse(5)[..512 * 3];
    assert_state(cut, State::Incomplete, "ends within a sparse member's map");
    assert_state(&after(&[sparse(3000)]), State::Foreign, "has too many extended headers");
}

#[test]
fn compressed_archives_are_read() {
    let plain = inspect(&web().build().unwrap());
    for (bytes, format) in [(web().gzip().unwrap(), Format::Gzip), (web().zstd().unwrap(), Format::Zstd)] {
        assert_eq!(inspect(&bytes), Inspection { format, ..plain.clone() });
        for cut in 4..bytes.len() {
            let contents = read(&bytes[..cut]);
            assert_eq!(contents.state, State::Incomplete, "{format:?} cut at {cut}");
        }
    }
    // In several parts, with a frame between that is to be skipped.
    let whole = web().build().unwrap();
    let (first, second) = whole.split_at(5000);
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let frame = |bytes| ruzstd::encoding::compress_to_vec(bytes, level);
    let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    let frames = [skipped.clone(), frame(first), skipped.clone(), frame(second), skipped].concat();
    assert_eq!(read(&frames).state, State::Complete);
    let part = |bytes: &[u8]| {
        let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
        let mut out = Vec::new();
        encoder.read_to_end(&mut out).unwrap();
        out
    };
    assert_eq!(read(&[part(first), part(second)].concat()).state, State::Complete);

    let mut corrupt = web().gzip().unwrap();
    let middle = corrupt.len() / 2;
    corrupt[middle..middle + 8].fill(0xff);
    assert_ne!(read(&corrupt).state, State::Complete);
    for compressed in [web().gzip().unwrap(), web().zstd().unwrap()] {
        let mut sum = compressed;
        let place = sum.len() - if sum[0] == 0x1f { 6 } else { 2 };
        sum[place] ^= 1;
        assert_state(&sum, State::Damaged, "the packed stream is corrupt");
    }
    assert_state(
        b"\x28\xb5\x2f\xfd\x00\x99aaaaaaaaaa",
        State::Foreign,
        "asks for a Zstandard window over 128 MiB",
    );
    assert_state(b"\x1f\x8b\x08\0\0\0\0\0\0\0\x07aaaaaaa", State::Damaged, "the packed stream is corrupt");
    assert_eq!(read(&part(b"no tar")).state, State::Foreign);
    assert_eq!(read(&part(b"checkpoint/")).state, State::Incomplete);
    assert_state(&part(&[b'x'; 512]), State::Foreign, "not a tar archive");
}

/// The bytes as a gzip member.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// The bytes as a Zstandard frame.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// The bytes as an xz stream that asks for a dictionary of so many bytes.
fn xz_with(bytes: &[u8], dictionary: u32) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(0);
    options.lzma_options.dict_size = dictionary;
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    io::Write::write_all(&mut writer, bytes).unwrap();
    writer.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    xz_with(bytes, 1 << 16)
}

/// An xz stream of these blocks, without checks of what they hold. It ends where they do.
fn xz_stream(blocks: &[u8]) -> Vec<u8> {
    [b"\xfd7zXZ\0\0\0", &crc(&[0, 0])[..], blocks].concat()
}

/// A block of such a stream, with a dictionary of 4 KiB.
fn xz_block(chunks: &[u8]) -> Vec<u8> {
    let header = [2, 0, 0x21, 1, 0, 0, 0, 0];
    let mut block = [&header[..], &crc(&header), chunks].concat();
    block.resize(block.len().next_multiple_of(4), 0);
    block
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// A Zstandard frame whose header asks for a window of 2^`log` bytes, with these blocks.
fn zstd_frame(log: u8, blocks: &[Vec<u8>]) -> Vec<u8> {
    [&b"\x28\xb5\x2f\xfd\x00"[..], &[(log - 10) << 3], &blocks.concat()].concat()
}

/// A raw block of a Zstandard frame.
fn zstd_block(bytes: &[u8], is_last: bool) -> Vec<u8> {
    let header = u32::try_from(bytes.len()).unwrap() << 3 | u32::from(is_last);
    [&header.to_le_bytes()[..3], bytes].concat()
}

#[test]
fn what_follows_a_packed_archive_is_of_no_interest() {
    let plain = inspect(&web().build().unwrap());
    let whole = web().build().unwrap();
    for (format, pack) in
        [(Format::Gzip, gzip as fn(&[u8]) -> Vec<u8>), (Format::Zstd, zstd), (Format::Xz, xz)]
    {
        let packed = pack(&whole);
        for tail in [
            vec![],
            vec![0; 512],
            b"older".repeat(99),
            packed[packed.len() / 2..].to_vec(),
            // What begins as another part, and is none.
            packed[..20].to_vec(),
            pack(b"another"),
            vec![0; 1],
        ] {
            let found = inspect(&[&packed[..], &tail].concat());
            assert_eq!(found, Inspection { format, ..plain.clone() }, "{format:?} and {}", tail.len());
        }
        // The checksum of the part in which the tar ends is still looked at, at whatever distance.
        let mut long = pack(&[&whole[..], &vec![7; 300_000]].concat());
        assert_eq!(read(&long).state, State::Complete, "{format:?}");
        let end = long.len();
        long.truncate(end - 1);
        assert_eq!(read(&long).state, State::Incomplete, "{format:?}");
        // A stream may end within the tar; then the tar is what was cut off.
        let cut = pack(&whole[..whole.len() - 2000]);
        assert_eq!(read(&[&cut[..], b"older"].concat()).state, State::Incomplete, "{format:?}");
    }
}

#[test]
fn a_tar_that_was_cut_off_says_the_same_however_it_is_packed() {
    for archive in [web(), web().config_json("{"), web().spec_json("[]")] {
        let whole = archive.build().unwrap();
        // Of the last one, only one of the two ways in reads more than its header.
        for name in ["config.dump", "spec.dump", "stats-dump"] {
            let at =
                (0..whole.len()).step_by(512).find(|&at| whole[at..].starts_with(name.as_bytes())).unwrap();
            for cut in (at..at + 1536).step_by(16) {
                let (plain, packed) = (read(&whole[..cut]), read(&gzip(&whole[..cut])));
                let (wanted, found) = ((plain.state, plain.identity), (packed.state, packed.identity));
                assert_eq!(found, wanted, "cut off {} bytes behind {name}", cut - at);
            }
        }
    }
}

#[test]
fn xz_archives_are_read() {
    let whole = web().build().unwrap();
    let packed = xz(&whole);
    let plain = inspect(&whole);
    assert_eq!(inspect(&packed), Inspection { format: Format::Xz, ..plain });
    for cut in 0..packed.len() {
        assert_eq!(read(&packed[..cut]).state, State::Incomplete, "cut at {cut}");
    }
    // In several streams, with padding between.
    let (first, second) = whole.split_at(5000);
    let two = [xz(first), vec![0; 8], xz(second)].concat();
    assert_eq!(read(&two).state, State::Complete);
    assert_eq!(read(&[xz(first), vec![0; 8]].concat()).state, State::Incomplete);
    let mut corrupt = packed.clone();
    corrupt[packed.len() / 2] ^= 4;
    assert_state(&corrupt, State::Damaged, "the packed stream is corrupt");
    assert_eq!(
        read(&xz(b"no tar, and long enough to be seen to be none of ours: 0123456789")).state,
        State::Foreign
    );
    // What `xz -7` asks for is given, and more is not.
    assert_eq!(read(&xz_with(&whole, 16 << 20)).state, State::Complete);
    let much = xz_with(&whole, 64 << 20);
    assert_state(&much, State::Foreign, "needs more than 16 MiB to unpack its xz stream");
    let mut state = 1_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let noise: Vec<u8> = (0..9 << 20).map(|_| random()).collect();
    let large = web().pages(noise).build().unwrap();
    assert_state(&xz(&large), State::Foreign, "is over 8 MiB of xz, which is not unpacked");
}

#[test]
fn packings_that_are_not_read_are_named() {
    for (start, problem) in [
        (&b"BZh91AY&SY"[..], "is packed with bzip2, which is not unpacked"),
        (b"\x04\x22\x4d\x18", "is packed with lz4, which is not unpacked"),
        (b"PK\x03\x04", "is a zip file"),
        (b"age-encryption.org/v1", "is encrypted with age"),
        (b"\x1f\x8b\x07\0", "not a tar archive"),
        (b"\x1f\x8b\x08\x20", "not a tar archive"),
    ] {
        for length in [start.len(), 600, 5_000] {
            let mut bytes = start.to_vec();
            bytes.resize(length.max(start.len()), 0x17);
            assert_state(&bytes, State::Foreign, problem);
        }
    }
    // A tar may begin with a member of such a name.
    let bytes = after(&[file("BZh9", b"x")]);
    assert_eq!(read(&bytes).state, State::Complete);
}

#[test]
fn memory_that_was_never_touched_packs_well_and_is_read() {
    let zeros = web().pages(vec![0; 80 << 20]).build().unwrap();
    let (before, rest) = zeros.split_at(8 << 20);
    let (same, after) = rest.split_at(64 << 20);
    // In parts, as packing so much at once takes longer than unpacking it.
    let xz = [xz(before), xz(&same[..8 << 20]).repeat(8), xz(after)].concat();
    for packed in [gzip(&zeros), zstd(&zeros), xz] {
        assert!(packed.len() < zeros.len() / 500);
        let contents = archive::read(&mut Cursor::new(packed)).unwrap();
        assert_eq!((contents.state, contents.problem), (State::Complete, None));
    }
}

#[test]
fn a_long_zstandard_window_is_read_as_far_as_memory_allows() {
    let whole = web().build().unwrap();
    // `zstd --long=27 < archive.tar`, which does not know how long it will be.
    assert_eq!(read(&zstd_frame(27, &[zstd_block(&whole, true)])).state, State::Complete);
    let problem = "asks for a Zstandard window over 128 MiB";
    assert_state(&zstd_frame(28, &[zstd_block(&whole, true)]), State::Foreign, problem);
    // What such a window makes this program hold is what counts.
    let pages = member(b'0', "checkpoint/pages-1.img", 40 << 20, b"");
    let blocks: Vec<Vec<u8>> = [zstd_block(&pages, false)]
        .into_iter()
        .chain(vec![zstd_block(&vec![7; 128 << 10], false); 320])
        .collect();
    let problem = "needs more than 16 MiB for its Zstandard window";
    assert_state(&zstd_frame(27, &blocks), State::Foreign, problem);
    assert_eq!(read(&zstd_frame(23, &blocks)).state, State::Incomplete);
    // However small the blocks are.
    let small: Vec<Vec<u8>> = whole.chunks(64).map(|part| zstd_block(part, false)).collect();
    assert!(small.len() > 128);
    assert_eq!(
        read(&zstd_frame(24, &[&small[..], &[zstd_block(b"", true)]].concat())).state,
        State::Complete
    );
}

/// What is unpacked is bounded by work, and what is beyond is not called damaged for that: it may be
/// sound. The bound is on steps and bytes, not on time, so that it holds on every machine; that it
/// was met shows in how much was read.
#[test]
fn what_takes_too_much_work_to_unpack_is_left() {
    let problem = "takes too much work to unpack";
    let bounded = |packed: Vec<u8>, most: u64| {
        let length = packed.len() as u64;
        let mut source = Source::new(packed, 0, Vec::new());
        let contents = archive::read(&mut source).unwrap();
        assert_eq!((contents.state, contents.problem.as_deref()), (State::Foreign, Some(problem)));
        assert!(source.bytes <= most && source.bytes < length, "{} of {length} bytes read", source.bytes);
    };
    // Members and frames of nothing: a million of them in 19 MiB.
    bounded(gzip(b"").repeat(1_000_000), 2 << 20);
    bounded(zstd_frame(10, &[zstd_block(b"", true)]).repeat(1_000_000), 2 << 20);
    bounded(b"\x50\x2a\x4d\x18\0\0\0\0".repeat(2_000_000), 2 << 20);
    // Blocks of nothing within one: for DEFLATE, fixed codes and stored ones.
    let start = &b"\x1f\x8b\x08\0\0\0\0\0\0\0"[..];
    bounded([start, &b"\0\0\0\xff\xff".repeat(3_000_000)].concat(), 2 << 20);
    bounded(zstd_frame(10, &vec![zstd_block(b"", false); 5_000_000]), 2 << 20);

    bounded(xz(b"").repeat(200_000), 2 << 20);
    // A tar that goes on and on in little space.
    let pages = member(b'0', "checkpoint/pages", 1 << 40, b"");
    let zeros = vec![0; 8 << 20];
    let rle = [&(((128 << 10) << 3) | 2_u32).to_le_bytes()[..3], &[0]].concat();
    bounded([gzip(&pages), gzip(&zeros).repeat(80)].concat(), 8 << 20);
    bounded([xz(&pages), xz(&zeros).repeat(400)].concat(), 8 << 20);
    bounded([zstd(&pages), zstd_frame(20, &vec![rle; 100_000])].concat(), 8 << 20);
    // Within one xz stream nobody tells how many blocks and chunks there are, so that its length is
    // bounded: blocks of nothing, and chunks that take new tables for a few bytes.
    let begun = xz_block(&[&[1, 1, 0xff], &pages[..], &[0]].concat());
    let chunk = b"\xe0\0\x17\0\x06\x7e\0\x30\xee\x06\0\0\0";
    for blocks in [xz_block(&[0]).repeat(600_000), xz_block(&chunk.repeat(700_000))] {
        let mut source = Source::new(xz_stream(&[&begun[..], &blocks].concat()), 0, Vec::new());
        let contents = archive::read(&mut source).unwrap();
        let problem = Some("is over 8 MiB of xz, which is not unpacked");
        assert_eq!((contents.state, contents.problem.as_deref()), (State::Foreign, problem));
        assert!(source.bytes <= (8 << 20) + 512, "{}", source.bytes);
    }
    // A promise alone costs nothing.
    assert_state(&gzip(&pages), State::Incomplete, "the unpacked tar ends within a member's data");
}

/// What a file may cost goes by what it takes on its disk, where that is known, and is bounded where it is not.
#[test]
fn a_hole_in_a_packed_file_buys_no_work() {
    let frame = b"\x28\xb5\x2f\xfd\x00\x58";
    let skippable = b"\x50\x2a\x4d\x18\xff\xff\xff\xff";
    let exabytes = 7_u64 << 60;
    for (start, hole, occupied, most) in [
        (&frame[..], 16 << 30, 4_096, 1 << 20),
        (frame, exabytes, 4_096, 1 << 20),
        (frame, exabytes, u64::MAX, 16 << 20),
        (skippable, 5 << 30, 4_096, 1 << 20),
    ] {
        let mut source = Source::new(start.to_vec(), hole, Vec::new());
        let options = ReadOptions { occupied, before_large: &mut || {} };
        let contents = archive::read_with(&mut source, options).unwrap();
        let told = (contents.state, contents.problem.as_deref());
        assert_eq!(told, (State::Foreign, Some("takes too much work to unpack")));
        assert!(source.bytes <= most, "{} bytes read", source.bytes);
    }
}

/// File systems say so of small files, of those that were written a moment ago, and of those that they pack.
#[test]
fn an_archive_that_seems_to_take_no_room_is_read_all_the_same() {
    let large = web().pages(vec![0; 80 << 20]).build().unwrap();
    let skippable = [&b"\x50\x2a\x4d\x18\0\0\x10\0"[..], &vec![7; 1 << 20]].concat();
    let whole = web().build().unwrap();
    for bytes in [
        whole.clone(),
        gzip(&whole),
        xz(&whole),
        zstd(&large),
        gzip(&large),
        [skippable, zstd(&large)].concat(),
    ] {
        for occupied in [0, 512] {
            let options = ReadOptions { occupied, before_large: &mut || {} };
            let contents = archive::read_with(&mut Cursor::new(&bytes), options).unwrap();
            assert_eq!((contents.state, contents.problem), (State::Complete, None));
        }
    }
}

#[test]
fn who_reads_is_told_before_much_memory_is_taken() {
    let asked = |bytes: &[u8]| {
        let mut asked = 0;
        let options = ReadOptions { occupied: u64::MAX, before_large: &mut || asked += 1 };
        archive::read_with(&mut Cursor::new(bytes), options).unwrap();
        asked
    };
    let of = |length: usize| format!(r#"{{"a": "{}"}}"#, "x".repeat(length - 9));
    let (small, large) = (of(1 << 20), of((1 << 20) + 1));
    assert_eq!(small.len(), 1 << 20);
    assert_eq!(asked(&web().config_json(&*small).spec_json(&*small).build().unwrap()), 0);
    assert_eq!(asked(&web().config_json(&*large).build().unwrap()), 1);
    assert_eq!(asked(&web().config_json(&*large).spec_json(&*large).build().unwrap()), 2);
    assert_eq!(asked(&web().gzip().unwrap()), 1);
}

/// Whatever is too long for what it says is as good as not there, and is not kept.
#[test]
fn texts_of_many_megabytes_are_not_kept() {
    let long = "x".repeat(8 << 20);
    let time = r#""checkpointedTime": "2026-11-27T10:00:00Z""#;
    for (config, escaped) in [("id", ""), ("name", "\\n"), ("rootfsImageName", "\\u0061"), ("runtime", "")] {
        for json in [
            format!(r#"{{"{config}": "{escaped}{long}", {time}}}"#),
            format!(r#"{{"{escaped}{long}": 1, {time}}}"#),
        ] {
            let found = inspect(&web().config_json(json).build().unwrap());
            let contents = &found.contents;
            assert_eq!(contents.state, State::Complete, "{config}");
            assert!(contents.checkpointed_at.is_some(), "{config}");
            assert_eq!((&contents.image, &contents.runtime, &found.container_id), (&None, &None, &None));
            // The annotations say whose it is.
            assert!(contents.identity.is_some());
        }
    }
}

/// A source that serves a hole of any size between two parts, counts what is read, and fails where
/// it is told to.
struct Source {
    before: Vec<u8>,
    hole: u64,
    after: Vec<u8>,
    position: u64,
    bytes: u64,
    reads: u64,
    fails_at: Option<u64>,
}

impl Source {
    fn new(before: Vec<u8>, hole: u64, after: Vec<u8>) -> Self {
        Self { before, hole, after, position: 0, bytes: 0, reads: 0, fails_at: None }
    }

    fn sparse(archive: &ArchiveBuilder, pages: u64) -> Self {
        let (before, after) = archive.around_pages(pages).unwrap();
        Self::new(before, pages.next_multiple_of(512), after)
    }

    fn len(&self) -> u64 {
        self.before.len() as u64 + self.hole + self.after.len() as u64
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fails_at.is_some_and(|at| self.position + buffer.len() as u64 > at) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let count = (buffer.len() as u64).min(self.len().saturating_sub(self.position));
        let hole = self.before.len() as u64;
        for (place, byte) in (self.position..self.position + count).zip(buffer.iter_mut()) {
            *byte = if place < hole {
                self.before[usize::try_from(place).unwrap()]
            } else if place < hole + self.hole {
                0
            } else {
                self.after[usize::try_from(place - hole - self.hole).unwrap()]
            };
        }
        self.position += count;
        self.bytes += count;
        self.reads += 1;
        Ok(usize::try_from(count).unwrap())
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(0) => self.len(),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(self.position)
    }
}

#[test]
fn the_byte_budget_holds_at_any_size() {
    for dialect in [Dialect::Containerd, Dialect::CriO] {
        for pages in [0, 8 << 10, 2 << 30, 28 << 30] {
            for extra in [0, 100, 5000] {
                let archive = web().dialect(dialect).extra_members(extra);
                let mut source = Source::sparse(&archive, pages);
                let contents = archive::read(&mut source).unwrap();
                assert_eq!((contents.state, contents.problem), (State::Complete, None));
                let (bytes, reads) = (source.bytes, source.reads);
                let found = archive::inspect(&mut Source::sparse(&archive, pages)).unwrap();
                // Headers, the end mark, and the two JSON members, which are under 2 KiB here.
                assert!(
                    bytes <= 512 * (found.members + 2) + 2048,
                    "{bytes} bytes for {} members",
                    found.members
                );
                assert!(reads <= found.members + 4, "{reads} reads for {} members", found.members);
            }
        }
    }
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/archives")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let compressed = bytes.len() as u64;
        let mut source = Source::new(bytes, 0, Vec::new());
        let found = archive::inspect(&mut source).unwrap();
        let budget = if found.format == Format::Tar { 32 << 10 } else { compressed + 512 };
        assert!(source.bytes <= budget, "{} bytes", source.bytes);
    }
}

/// A tar of the same members without end.
struct Endless {
    header: Vec<u8>,
    position: u64,
    bytes: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Whole headers are all that is asked of it.
        buffer.copy_from_slice(&self.header[..buffer.len()]);
        self.position += buffer.len() as u64;
        self.bytes += buffer.len() as u64;
        Ok(buffer.len())
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = if let SeekFrom::Start(at) = to { at } else { 1 << 40 };
        Ok(self.position)
    }
}

#[test]
fn members_without_end_are_not_read_to_it() {
    for name in ["checkpoint/core-1.img", "weights"] {
        let mut endless = Endless { header: member(b'0', name, 0, b""), position: 0, bytes: 0 };
        let contents = archive::read(&mut endless).unwrap();
        let problem = Some("has too many members");
        assert_eq!((contents.state, contents.problem.as_deref()), (State::Foreign, problem));
        assert!(endless.bytes <= 128 << 20, "{}", endless.bytes);
    }
}

#[test]
fn headers_that_extend_others_are_not_read_without_end() {
    let problem = Some("has too many extended headers");
    let value = "v".repeat((64 << 10) - 15);
    let header = pax(format!("65536 comment={value}\n").as_bytes());
    let name = member(b'L', "././@LongLink", 64 << 10, &vec![b'n'; 64 << 10]);
    let mut map = [b'1'; 512];
    map[504] = 1;
    let mut sparse = tar::Header::new_gnu();
    sparse.set_path("checkpoint/pages").unwrap();
    sparse.set_entry_type(tar::EntryType::GNUSparse);
    sparse.set_size(512);
    sparse.as_gnu_mut().unwrap().set_is_extended(true);
    sparse.set_cksum();
    for endless in
        [header.repeat(200), name.repeat(200), [sparse.as_bytes(), &map.repeat(20_000)[..]].concat()]
    {
        let mut source = Source::new(endless, 0, Vec::new());
        let contents = archive::read(&mut source).unwrap();
        assert_eq!((contents.state, contents.problem.as_deref()), (State::Foreign, problem));
        assert!(source.bytes <= 2 << 20 && source.bytes < source.len() / 4, "{}", source.bytes);
    }
}

#[test]
fn what_a_header_promises_is_not_read_before_it_is_known_to_be_there() {
    for (kind, name, size, hole, state) in [
        (b'0', "config.dump", 16 << 20, 15 << 20, State::Incomplete),
        (b'0', "spec.dump", (16 << 20) + 1, 17 << 20, State::Foreign),
        (b'0', "checkpoint/pages", 1 << 40, 17 << 20, State::Incomplete),
        (b'L', "config.dump", 1 << 20, 1 << 19, State::Incomplete),
        (b'x', "config.dump", (1 << 20) + 1, 17 << 20, State::Foreign),
        (b'K', "config.dump", 1 << 40, 17 << 20, State::Incomplete),
    ] {
        let mut source = Source::new([images(), member(kind, name, size, b"")].concat(), hole, Vec::new());
        assert_eq!(archive::read(&mut source).unwrap().state, state, "{name}");
        assert!(source.bytes <= 3 * 512, "{name}: {}", source.bytes);
    }
}

#[test]
fn a_source_that_fails_is_an_error_and_no_verdict() {
    for bytes in [web().build().unwrap(), web().gzip().unwrap(), web().zstd().unwrap()] {
        for fails_at in 0..bytes.len() as u64 {
            let mut source = Source::new(bytes.clone(), 0, Vec::new());
            source.fails_at = Some(fails_at);
            match archive::read(&mut source) {
                Err(error) => assert_eq!(error.raw_os_error(), Some(5)),
                // Only where the bytes behind it were not asked for.
                Ok(contents) => assert_eq!(contents.state, State::Complete, "at {fails_at}"),
            }
        }
    }
}

/// A source whose every other read is interrupted, as NFS and FUSE have it.
struct Interrupted {
    source: Cursor<Vec<u8>>,
    is_next: bool,
}

impl Read for Interrupted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_next = !self.is_next;
        if !self.is_next {
            return Err(io::ErrorKind::Interrupted.into());
        }
        // Little at a time, so that there are many reads.
        let wanted = buffer.len().min(100);
        self.source.read(&mut buffer[..wanted])
    }
}

impl Seek for Interrupted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.source.seek(to)
    }
}

#[test]
fn a_read_that_is_interrupted_is_repeated_however_the_archive_is_packed() {
    let archive = web();
    let tar = archive.build().unwrap();
    for bytes in [tar.clone(), archive.gzip().unwrap(), archive.zstd().unwrap(), xz(&tar)] {
        for is_next in [false, true] {
            let mut source = Interrupted { source: Cursor::new(bytes.clone()), is_next };
            assert_eq!(archive::read(&mut source).unwrap(), read(&bytes));
        }
    }
}

#[test]
fn written_archives_are_what_was_built() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("written-archives");
    std::fs::create_dir_all(&directory).unwrap();
    let mut paths = vec![web().write_to(&directory).unwrap()];
    assert!(paths[0].ends_with("checkpoint-web-0_shop-server-2026-11-22T15:59:42Z.tar"));
    assert_eq!(std::fs::read(&paths[0]).unwrap(), web().build().unwrap());
    for (at, pages) in [("2026-11-22T15:59:43.5+01:00", 2_u64 << 30), ("2026-11-22T15:59:44Z", 28 << 30)] {
        let path = web().at(at).write_sparse(&directory, pages).unwrap();
        let mut file = std::fs::File::open(&path).unwrap();
        assert!(file.metadata().unwrap().len() > pages);
        assert_eq!(archive::read(&mut file).unwrap().state, State::Complete);
        paths.push(path);
    }
    assert!(paths[1].ends_with("checkpoint-web-0_shop-server-2026-11-22T15:59:43+01:00.tar"));
    for path in paths {
        std::fs::remove_file(path).unwrap();
    }
}
