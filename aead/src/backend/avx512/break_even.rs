//! When one pass over several packets beats taking them one after the other.

use super::burst::Group;

/// Whether the group's packets are faster together.
pub(super) fn group_wins(group: &Group<'_, '_, '_>) -> bool {
    group.len() >= 1
}
