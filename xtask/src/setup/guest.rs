//! The kernel of the guest that `interop_kernel` boots: a Debian package, unpacked into a cache outside the checkout.
//!
//! Nothing of it is installed: a kernel in `/boot` would be one more for the host to boot.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use ::tests::guest::kernel::{self, Kernel, MODULES, version_key};
use anyhow::{Context, Result, bail, ensure};

use crate::{
    command::{self, command, output, step},
    setup::{install_missing, packages},
};

/// The names of packages that will do: the long-term series the tests are written for, small and without signatures.
const PACKAGE: &str = r"^linux-image-6\.12\..*-cloud-amd64-unsigned$";
/// Where a bzImage tells where its compressed kernel is: `setup_sects`, `payload_offset`, `payload_length`
/// (Linux, Documentation/arch/x86/boot.rst).
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// What a zstd frame begins with.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Installs the emulator and brings the kernel, where this machine can use them.
pub fn run() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    install_missing(packages::GUEST)?;
    if Kernel::installed().is_ok() {
        return Ok(());
    }
    step("setup: bring a kernel with WireGuard for the guest", bring)
}

fn bring() -> Result<()> {
    let package = newest_package()?;
    let cache = kernel::cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("{} cannot be made", cache.display()))?;
    // Beside the place it will have, so that it gets there by renaming, whole.
    let work = cache.join(format!("unpacking-{}", std::process::id()));
    fs::create_dir(&work).with_context(|| format!("{} cannot be made", work.display()))?;
    let outcome = unpack(&package, &work, &cache).with_context(|| format!("package {package}"));
    fs::remove_dir_all(&work).with_context(|| format!("{} cannot be removed", work.display()))?;
    outcome
}

/// The newest of the packages that apt knows.
fn newest_package() -> Result<String> {
    let search = || {
        let names = output(command("apt-cache").args(["search", "--names-only", PACKAGE]))?;
        let names = names.lines().filter_map(|line| line.split_whitespace().next());
        names.max_by_key(|name| version_key(name)).map(str::to_owned)
    };
    if let Some(package) = search() {
        return Ok(package);
    }
    command::run(command("apt-get").args(["--quiet=2", "update"]))?;
    search()
        .with_context(|| format!("apt knows no package like {PACKAGE}; the kernel's tests will be skipped"))
}

fn unpack(package: &str, work: &Path, cache: &Path) -> Result<()> {
    let mut download = command("apt-get");
    // Without a sandbox: its user may not write into our cache.
    download.args(["--quiet=2", "--option=APT::Sandbox::User=root", "download", package]).current_dir(work);
    command::run(&mut download)?;
    let archive = only_entry(work)?;
    let files = work.join("files");
    command::run(command("dpkg-deb").arg("--extract").args([&archive, &files]))?;

    let tree =
        [files.join("lib/modules"), files.join("usr/lib/modules")].into_iter().find(|path| path.is_dir());
    let release = only_entry(&tree.context("it holds no modules")?)?;
    let release =
        release.file_name().and_then(|name| name.to_str()).context("a release is a word")?.to_owned();
    let ready = Kernel::at(&work.join("ready"), &release);
    fs::create_dir_all(ready.modules())?;
    let image = fs::read(files.join(format!("boot/vmlinuz-{release}")))?;
    write_image(&image, work, &ready.image())?;
    write_modules(&files, &release, &ready.modules())?;

    let place = Kernel::at(cache, &release);
    if place.folder().exists() {
        fs::remove_dir_all(place.folder())?;
    }
    fs::rename(ready.folder(), place.folder())?;
    Ok(())
}

/// The one entry of a folder.
fn only_entry(folder: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder)?;
    let entry = entries.next().with_context(|| format!("{} is empty", folder.display()))??;
    ensure!(entries.next().is_none(), "{} holds more than one entry", folder.display());
    Ok(entry.path())
}

/// Unpacks the kernel if we can: doing it in the emulator would take as long as the rest of the boot.
fn write_image(image: &[u8], work: &Path, to: &Path) -> Result<()> {
    let Some(payload) = zstd_payload(image) else {
        return fs::write(to, image).context("the kernel cannot be written");
    };
    let packed = work.join("kernel.zst");
    fs::write(&packed, payload)?;
    command::run(command("zstd").args(["-dq", "-o"]).arg(to).arg(&packed))
}

/// The zstd frame in a bzImage, without the size of its content that follows it.
fn zstd_payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    let start = (usize::from(*image.get(SETUP_SECTORS)?) + 1) * 512 + number(PAYLOAD_OFFSET)?;
    let payload = image.get(start..)?.get(..number(PAYLOAD_LENGTH)?.checked_sub(4)?)?;
    payload.starts_with(&ZSTD_MAGIC).then_some(payload)
}

/// Writes the modules uncompressed, numbered in the order they load in.
fn write_modules(files: &Path, release: &str, to: &Path) -> Result<()> {
    // `modprobe` looks below lib/modules, wherever the package has them.
    let base = if files.join("lib/modules").is_dir() { files.to_owned() } else { files.join("usr") };
    command::run(command("depmod").arg("-b").arg(&base).arg(release))?;
    let mut order: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        let mut modprobe = command("modprobe");
        modprobe.arg("-d").arg(&base).args(["-S", release, "--show-depends", module]);
        let text = output(&mut modprobe).with_context(|| format!("it has no module {module}"))?;
        for path in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = PathBuf::from(path.split_whitespace().next().unwrap_or_default());
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    for (index, path) in order.iter().enumerate() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (name, packer) = match name.rsplit_once('.') {
            Some((name, "xz")) => (name, Some("xz")),
            Some((name, "zst")) => (name, Some("zstd")),
            Some((_, "ko")) => (name, None),
            _ => bail!("{} is packed in an unknown way", path.display()),
        };
        let to = to.join(format!("{index:02}-{name}"));
        let Some(packer) = packer else {
            fs::copy(path, &to)?;
            continue;
        };
        let unpacked = std::process::Command::new(packer)
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .arg("-dc")
            .arg(path)
            .stdout(fs::File::create(&to)?)
            .status()
            .with_context(|| format!("{packer} did not start"))?;
        ensure!(unpacked.success(), "{packer} cannot unpack {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SETUP_SECTORS] = 1;
        image[PAYLOAD_OFFSET] = 16;
        image[PAYLOAD_LENGTH] = payload.len() as u8;
        image.resize(1024 + 16, 0);
        image.extend(payload);
        image
    }

    #[test]
    fn the_kernel_in_an_image_is_found() {
        let frame = [&ZSTD_MAGIC[..], b"kernel"].concat();
        let payload = [&frame[..], b"size"].concat();
        assert_eq!(zstd_payload(&image(&payload)), Some(&frame[..]));
    }

    #[test]
    fn an_image_of_another_kind_is_left_as_it_is() {
        assert_eq!(zstd_payload(&image(b"\x1f\x8b gzip size")), None);
        assert_eq!(zstd_payload(&image(b"siz")), None);
        assert_eq!(zstd_payload(&[0; 100]), None);
        // The file ends within the frame.
        let mut short = image(&[&ZSTD_MAGIC[..], b"kernelsize"].concat());
        short.truncate(short.len() - 5);
        assert_eq!(zstd_payload(&short), None);
    }
}
