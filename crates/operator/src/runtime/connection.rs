//! The way to the API, for the long-running commands.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::cluster::ConnectError;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A client for the cluster of a kubeconfig, or for the one around this pod: at the address that its
/// environment names, so that no name is looked up.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?
        }
        None => Config::incluster()?,
    };
    config.connect_timeout = Some(CONNECT);
    // Who sends a request knows how long it still makes sense, and whether it may be sent twice.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
