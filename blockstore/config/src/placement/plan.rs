//! Commands that need a placement, made ready to be proposed.

use mooring_terms::{BLOCK_SIZE, SliceIndex};

use super::{Hints, place};
use crate::placement::choose::Choice;
use crate::{ClusterState, Command, Refused, Setting, Volume, VolumeRequest, VolumeSpec};

/// The command that creates a volume: defaults filled in, pools chosen. For a volume that exists,
/// the command that lets the state machine compare it with the request.
///
/// # Errors
/// [`Refused`]: a specification that can't be, or no placement for it.
pub fn plan_create(
    state: &ClusterState,
    hints: &Hints,
    name: &str,
    request: &VolumeRequest,
) -> Result<Command, Refused> {
    let command = |spec, placement| Command::CreateVolume {
        name: name.to_owned(),
        request: Box::new(request.clone()),
        spec: Box::new(spec),
        placement,
    };
    if let Some(volume) = state.volume_by_name(name) {
        return Ok(command(volume.spec.clone(), Vec::new()));
    }
    let spec = request.resolve(state)?;
    let count = slices(&spec);
    let turn = name.bytes().fold(0_u64, |turn, byte| turn.wrapping_mul(31) + u64::from(byte));
    let placement = place(state, hints, &spec, (SliceIndex(0), count), turn);
    Ok(command(spec, placement.map_err(Refused::NoPlacement)?))
}

/// The command that grows a volume to `size` bytes, rounded up to whole blocks.
///
/// # Errors
/// [`Refused`]: a size that can't be, or no placement for the slices that are added.
pub fn plan_resize(
    state: &ClusterState,
    hints: &Hints,
    volume: &Volume,
    size: u64,
) -> Result<Command, Refused> {
    let size = size.checked_next_multiple_of(BLOCK_SIZE as u64).unwrap_or(u64::MAX);
    let current = volume.spec.size;
    if size < current {
        return Err(Refused::Shrinks { name: volume.name.clone(), current, asked: size });
    }
    let spec = VolumeSpec { size, ..volume.spec.clone() };
    spec.check()?;
    let have = u32::try_from(volume.slices.len()).unwrap_or(u32::MAX);
    let range = (SliceIndex(have), slices(&spec).saturating_sub(have));
    let placement = place(state, hints, &spec, range, volume.id.0).map_err(Refused::NoPlacement)?;
    Ok(Command::ResizeVolume { volume: volume.id, size, placement })
}

/// The command that changes a volume's settings; refused when there is no place for the replicas
/// that it asks for.
///
/// # Errors
/// [`Refused`].
pub fn plan_set(
    state: &ClusterState,
    hints: &Hints,
    volume: &Volume,
    settings: &[Setting],
) -> Result<Command, Refused> {
    let spec = volume.spec.with(settings)?;
    if spec.replicas > volume.spec.replicas {
        let choice = Choice { state, hints, spec: &spec, turn: volume.id.0, index: SliceIndex(0) };
        let missing = choice.missing(spec.replicas);
        if missing.usable.len() < spec.replicas as usize {
            return Err(Refused::NoPlacement(missing));
        }
    }
    Ok(Command::SetVolume { volume: volume.id, settings: settings.to_vec() })
}

fn slices(spec: &VolumeSpec) -> u32 {
    u32::try_from(spec.slice_count()).unwrap_or(u32::MAX)
}
