//! What plugins subscribe to.

use crate::wire::Event;

/// A set of events: bit `n - 1` is event `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u32);

impl Events {
    const ALL: u32 = (1 << (Event::Last as u32 - 1)) - 1;

    /// What a plugin has subscribed to; nothing said is everything. The bits nobody knows are the error.
    pub fn subscribed(mask: i32) -> Result<Self, u32> {
        let mask = mask.cast_unsigned();
        match (mask, mask & !Self::ALL) {
            (0, _) => Ok(Self(Self::ALL)),
            (mask, 0) => Ok(Self(mask)),
            (_, unknown) => Err(unknown),
        }
    }

    /// Whether an event is in it.
    pub fn has(self, event: Event) -> bool {
        self.0 & bit(event) != 0
    }
}

fn bit(event: Event) -> u32 {
    let number: u32 = (event as i32).cast_unsigned();
    number.checked_sub(1).map_or(0, |shift| 1 << shift)
}

/// The method of `Plugin` by which an event is told.
pub fn method(event: Event) -> &'static str {
    match event {
        Event::RunPodSandbox => "RunPodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::PostCreateContainer => "PostCreateContainer",
        Event::StartContainer => "StartContainer",
        Event::PostStartContainer => "PostStartContainer",
        Event::UpdateContainer => "UpdateContainer",
        Event::PostUpdateContainer => "PostUpdateContainer",
        Event::StopContainer => "StopContainer",
        Event::RemoveContainer => "RemoveContainer",
        Event::UpdatePodSandbox => "UpdatePodSandbox",
        Event::PostUpdatePodSandbox => "PostUpdatePodSandbox",
        Event::ValidateContainerAdjustment => "ValidateContainerAdjustment",
        Event::Unknown | Event::Last => "StateChange",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_everything_and_bits_nobody_knows_are_refused() {
        let all = Events::subscribed(0).unwrap();
        assert!(all.has(Event::RunPodSandbox) && all.has(Event::ValidateContainerAdjustment));
        assert!(!all.has(Event::Unknown));
        let some = Events::subscribed(1 << 3).unwrap();
        assert!(some.has(Event::CreateContainer) && !some.has(Event::StopContainer));
        assert_eq!(Events::subscribed(1 << 20), Err(1 << 20));
        assert!(Events::subscribed(i32::MIN).is_err());
    }
}
