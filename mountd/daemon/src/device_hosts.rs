//! The kinds of device that this node can make, best first.

use std::sync::Arc;

use blockstore::Volume;
use mooring_device::holder::HolderClient;
use mooring_device::{BlockIo, Device, DeviceError, DeviceHost, DeviceKind};
use parking_lot::Mutex;

use crate::attachments::blocking;
use crate::error::DaemonError;

/// What makes devices, one of a kind. Clones share everything.
#[derive(Clone)]
pub struct DeviceHosts {
    hosts: Vec<Arc<dyn DeviceHost>>,
    /// The kinds that this node can't make, and why.
    missing: Arc<[(DeviceKind, String)]>,
    holder: Arc<Mutex<Arc<HolderClient>>>,
}

/// A device that the holder has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its kind.
    pub kind: DeviceKind,
    /// Its name.
    pub name: String,
    /// What was noted beside it.
    pub note: Vec<u8>,
}

impl DeviceHosts {
    /// Of these, the first is taken where none is asked for; `missing` can't be made here, for the
    /// reason that stands beside.
    #[must_use]
    pub fn new(
        hosts: Vec<Arc<dyn DeviceHost>>,
        missing: Vec<(DeviceKind, String)>,
        holder: Arc<HolderClient>,
    ) -> Self {
        Self { hosts, missing: missing.into(), holder: Arc::new(Mutex::new(holder)) }
    }

    /// Keeps devices with another holder from now on, where the one before has ended. Those that there
    /// are already are handed to it by [`DeviceHosts::keep`].
    pub fn change_holder(&self, holder: &Arc<HolderClient>) {
        *self.holder.lock() = Arc::clone(holder);
        for host in &self.hosts {
            host.change_holder(Arc::clone(holder));
        }
    }

    /// Hands a device to the present holder, if another one has it. Says whether it was handed over.
    ///
    /// # Errors
    /// As [`Device::keep_with`].
    pub fn keep(&self, device: &dyn Device) -> Result<bool, DeviceError> {
        let holder = Arc::clone(&self.holder.lock());
        device.keep_with(&holder)
    }

    /// The kinds, best first.
    pub fn kinds(&self) -> impl Iterator<Item = DeviceKind> {
        self.hosts.iter().map(|host| host.kind())
    }

    /// The kinds that can't be made here, and why.
    #[must_use]
    pub fn missing(&self) -> &[(DeviceKind, String)] {
        &self.missing
    }

    /// What makes devices of `kind`, or the best ones; `None` if this node can't.
    #[must_use]
    pub fn find(&self, kind: Option<DeviceKind>) -> Option<Arc<dyn DeviceHost>> {
        self.hosts.iter().find(|host| kind.is_none_or(|kind| host.kind() == kind)).cloned()
    }

    /// All that the holder has kept.
    ///
    /// # Errors
    /// [`DeviceError::Holder`] if it can't be reached.
    pub fn held(&self) -> Result<Vec<Held>, DeviceError> {
        let mut all = Vec::new();
        for host in &self.hosts {
            let kind = host.kind();
            all.extend(host.held()?.into_iter().map(|(name, note)| Held { kind, name, note }));
        }
        Ok(all)
    }

    /// Goes on with a device that the holder has kept, from the same volume.
    ///
    /// # Errors
    /// As [`DeviceHost::resume`].
    pub async fn resume(
        &self,
        held: &Held,
        volume: &Arc<Volume>,
    ) -> Result<Arc<dyn Device>, DaemonError> {
        let io: Arc<dyn BlockIo> = Arc::clone(volume) as _;
        let (host, name) = (self.find(Some(held.kind)), held.name.clone());
        let not_held = DeviceError::NotHeld { name: name.clone() };
        let host = host.ok_or(DaemonError::Device(not_held))?;
        blocking(move || host.resume(&name, io)).await?.map_err(DaemonError::Device)
    }

    /// Takes away what the holder has kept, and nobody is to serve any more.
    ///
    /// # Errors
    /// As [`DeviceHost::abandon`].
    pub async fn abandon(&self, held: &Held) -> Result<(), DaemonError> {
        let Some(host) = self.find(Some(held.kind)) else { return Ok(()) };
        let name = held.name.clone();
        blocking(move || host.abandon(&name)).await?.map(drop).map_err(DaemonError::Device)
    }

    /// Clears away what earlier daemons have left and no holder keeps.
    pub async fn sweep(&self) {
        for host in self.hosts.clone() {
            let swept = match blocking(move || host.sweep()).await {
                Ok(Ok(swept)) => swept,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "what earlier daemons left behind was not looked for");
                    continue;
                }
                Err(_) => continue,
            };
            for name in swept.cleaned.iter().chain(&swept.lingering) {
                tracing::info!(
                    device = name,
                    "what an earlier daemon left behind was cleared away"
                );
            }
            for (name, error) in swept.failed {
                tracing::warn!(device = name, %error, "what an earlier daemon left behind stays");
            }
        }
    }
}
