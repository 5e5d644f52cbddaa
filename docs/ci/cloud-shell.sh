VERSION=v0.1.0 IMAGE='<image by its digest>' KEY='<OCID of the key that signs>'
curl -fsSLO "https://github.com/oke-sign/oke-sign/releases/download/$VERSION/{kubectl-oke_sign_linux_amd64.tar.gz,checksums.txt}"
sha256sum -c --ignore-missing checksums.txt && tar -xzf kubectl-oke_sign_linux_amd64.tar.gz kubectl-oke_sign
./kubectl-oke_sign sign "$IMAGE" --key "$KEY"
./kubectl-oke_sign verify "$IMAGE" --key "$KEY"
