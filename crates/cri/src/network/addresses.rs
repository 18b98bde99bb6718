//! Which of a pod's addresses is told first.

use cni::IpConfig;

use crate::config::IpPreference;

/// The first address and the others, in the order in which plugins gave them.
pub fn choose(configs: &[IpConfig], preference: IpPreference) -> Option<(String, Vec<String>)> {
    let wanted = |config: &IpConfig| match preference {
        IpPreference::Ipv4 => config.ip.is_ipv4(),
        IpPreference::Ipv6 => config.ip.is_ipv6(),
        IpPreference::Cni => true,
    };
    let first = configs.iter().position(wanted).unwrap_or(0);
    let others = configs.iter().enumerate().filter(|(at, _)| *at != first).map(|(_, c)| c.ip.to_string());
    Some((configs.get(first)?.ip.to_string(), others.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_family_comes_first_and_the_others_keep_their_order() {
        let configs: Vec<IpConfig> = ["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2"]
            .map(|ip| IpConfig { ip: ip.parse().unwrap(), gateway: None })
            .to_vec();
        let first = |preference| {
            let (first, others) = choose(&configs, preference).unwrap();
            assert_eq!(others.len(), 3);
            (first, others[0].clone())
        };
        assert_eq!(first(IpPreference::Ipv4), ("10.0.0.1".into(), "fd00::1".into()));
        assert_eq!(first(IpPreference::Ipv6), ("fd00::1".into(), "10.0.0.1".into()));
        assert_eq!(first(IpPreference::Cni), ("fd00::1".into(), "10.0.0.1".into()));
        assert_eq!(choose(&configs[..1], IpPreference::Ipv4).unwrap(), ("fd00::1".into(), vec![]));
        assert_eq!(choose(&[], IpPreference::Ipv4), None);
    }
}
