//! A real throw-away Kubernetes cluster on one Debian machine: a control plane and nodes, each a
//! "machine" of its own in private namespaces, with real kubelets, containerd or CRI-O, runc, crun and CRIU.
//!
//! Making it: [`components`] fills a cache with what machines are made of, [`pki`] issues the
//! certificates, [`keeper`] is the one process of the host that holds the machines' disks, starts
//! them and forwards their ports, [`machine`] is what runs inside as PID 1, and [`lifecycle`] puts
//! these together and takes them apart. Using it: [`Cluster`], [`Node`] and [`Fault`] in tests,
//! [`cli`] by hand. `README.md` beside this folder says how it is made, and why so.

pub mod cgroups;
pub mod chart;
pub mod cli;
mod client;
mod cluster;
pub mod components;
pub mod cross;
mod fault;
pub mod image;
pub mod keeper;
pub mod lifecycle;
pub mod machine;
mod network;
mod node;
mod packages;
pub mod paths;
pub mod pki;
pub mod process;
pub mod prometheus;
mod recovery;
mod runtime;
pub mod schemas;
pub mod tools;
pub mod wait;

pub use client::Client;
pub use cluster::{Cluster, Namespace};
pub use fault::{Daemon, Fault, Injected};
pub use node::{Checkpoint, Node, RunningContainer};
pub use recovery::Recovery;
pub use runtime::Runtime;
