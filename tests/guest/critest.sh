#!/bin/bash
# What runs in the guest of `cargo xtask guest critest`: tests/conformance/critest.sh with these arguments, on a file system
# whose mounts can have other ids (ext4; the guest's tmpfs cannot), as the user namespaces of pods need it.
#
#   critest.sh ARGUMENT...        in the environment: CNI_BIN_DIR; PATH
#
# /out/critest is where the same script has filled a registry; the results are put into /out/results.
set -eu
dir=/run/crt

# The suite loads its profiles with it. The guest's root takes this; nothing of the host changes.
printf '#!/bin/sh\nexec "$@"\n' > /usr/local/bin/sudo
chmod 755 /usr/local/bin/sudo

mkdir -p $dir
truncate -s 3G /run/crt.ext4
mkfs.ext4 -q -O ^has_journal /run/crt.ext4
mount -o loop /run/crt.ext4 $dir
chmod 755 $dir
mkdir $dir/images
cp /out/critest/images/test-image-digest $dir/images/
ln -s /out/critest/registry $dir/registry

# What is told meanwhile can be read outside.
mkdir -p /out/results
ln -s /out/results $dir/results

code=0
bash "$(dirname "$0")/../conformance/critest.sh" --dir $dir --filled --timeout 4h "$@" || code=$?
cp $dir/daemon.log /out/results/
exit $code
