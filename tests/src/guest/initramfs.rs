//! The guest's root: programs of this machine with their libraries, the kernel's modules, and an init that does what
//! it is told over a serial port.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{guest::Kernel, program};

/// Time to pack; the disk may be busy.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Programs of this machine that the guest has, beside those of busybox.
///
/// A shell of its own too: busybox's prefers its own `ip` and `ping` to those in the path.
pub const PROGRAMS: [&str; 7] = ["dash", "ip", "tc", "wg", "ping", "iperf3", "tcpdump"];

/// Runs one command per line of the port and answers each with its output and a line `@done NUMBER CODE`.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox --install -s /bin
for module in /modules/*; do /bin/insmod "$module" || echo "insmod $module failed"; done
export PATH=/usr/bin:/bin LC_ALL=C HOME=/tmp
exec /usr/bin/dash /serve
"#;

const SERVE: &str = r#"ip link set lo up
port=$(echo /dev/vport*p1)
[ -c "$port" ] || echo "there is no serial port"
exec <>"$port" >/dev/console 2>&1
exec 3>&0
while :; do
    # The port is at its end until the other side is known to be there.
    read -r number line || { sleep 0.05; continue; }
    ( eval "$line" ) </dev/null >/tmp/.reply 2>&1 3>&-
    code=$?
    cat /tmp/.reply >&3
    printf '\n@done %s %s\n' "$number" "$code" >&3
done
"#;

/// Packs the root filesystem into `folder` and returns the archive.
pub fn pack(kernel: &Kernel, folder: &Path) -> Result<PathBuf> {
    let root = folder.join("guest-root");
    let archive = folder.join("guest.cpio");
    fill(kernel, &root).with_context(|| format!("{} cannot be filled", root.display()))?;
    let busybox = program::find("busybox").context("there is no busybox")?;
    // The archiver reads names from its standard input, so it takes a shell.
    let mut command = program::command("sh");
    command.current_dir(&root).env("BUSYBOX", busybox).env("ARCHIVE", &archive);
    command.args(["-c", "find . | \"$BUSYBOX\" cpio -o -H newc >\"$ARCHIVE\""]);
    program::output(&mut command, TIMEOUT)?;
    fs::remove_dir_all(&root)?;
    Ok(archive)
}

fn fill(kernel: &Kernel, root: &Path) -> Result<()> {
    for folder in ["bin", "dev", "etc", "modules", "proc", "sys", "tmp", "usr/bin", "var"] {
        fs::create_dir_all(root.join(folder))?;
    }
    symlink("/tmp", root.join("run"))?;
    symlink("/tmp", root.join("var/run"))?;
    // Programs that give up their rights look for whom to become.
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/tmp:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    write_program(&root.join("init"), INIT)?;
    write_program(&root.join("serve"), SERVE)?;
    for entry in fs::read_dir(kernel.modules())? {
        let entry = entry?;
        fs::copy(entry.path(), root.join("modules").join(entry.file_name()))?;
    }
    copy_program("busybox", &root.join("bin/busybox"), root)?;
    for name in PROGRAMS {
        copy_program(name, &root.join("usr/bin").join(name), root)?;
    }
    Ok(())
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Copies a program, and its libraries to where its loader looks for them.
fn copy_program(name: &str, to: &Path, root: &Path) -> Result<()> {
    let from = program::find(name).with_context(|| format!("there is no {name}"))?;
    fs::copy(&from, to).with_context(|| from.display().to_string())?;
    // Fails for a static program, which has none.
    let outcome = program::run(program::command("ldd").arg(&from), TIMEOUT)?;
    for library in libraries(&outcome.stdout)? {
        let place = root.join(library.strip_prefix("/").unwrap_or(&library));
        if !place.exists() {
            fs::create_dir_all(place.parent().context("a library lies in a folder")?)?;
            fs::copy(&library, &place).with_context(|| library.display().to_string())?;
        }
    }
    Ok(())
}

/// The files in the output of `ldd`: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the loader itself.
fn libraries(text: &str) -> Result<BTreeSet<PathBuf>> {
    ensure!(!text.contains("not found"), "a library is missing:\n{text}");
    let words = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(words.map(|word| PathBuf::from(word.trim_end_matches(':'))).filter(|path| path.is_file()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_a_program_are_found_with_their_loader() {
        let loader = std::env::current_exe().unwrap();
        let shown = loader.display();
        let text = format!("\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => {shown} (0x7f)\n\t{shown} (0x7f)\n");
        assert_eq!(libraries(&text).unwrap(), BTreeSet::from([loader]));
    }

    #[test]
    fn a_missing_library_is_an_error() {
        assert!(libraries("\tlibm.so.6 => not found\n").unwrap_err().to_string().contains("libm.so.6"));
    }
}
