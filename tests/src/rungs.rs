//! Tests that hold on both rungs of the io ladder.

/// Makes two tests of each function `fn(&mut Lab, Io) -> Result<()>`: `af_xdp::NAME` and `udp_rung::NAME`.
#[macro_export]
macro_rules! on_both_rungs {
    ($($name:ident,)+) => {
        mod af_xdp {
            $(#[test] fn $name() {
                let name = concat!("af_xdp::", stringify!($name));
                $crate::scenario_with_wgx(name, |lab| super::$name(lab, $crate::Io::AfXdp));
            })+
        }
        mod udp_rung {
            $(#[test] fn $name() {
                let name = concat!("udp_rung::", stringify!($name));
                $crate::scenario_with_wgx(name, |lab| super::$name(lab, $crate::Io::Udp));
            })+
        }
    };
}
