#!/bin/bash
# Asks a real tenancy what the switches of the emulator leave open, with Oracle's
# own command line (oci) and openssl, and prints one line per switch.
#
#   KEY=ocid1.key…  IMAGE=ocid1.containerimage…  [LIMITED=PROFILE]  ./confirm.sh
#
# KEY is an RSA key and IMAGE an image that nobody relies on: the key is disabled
# and enabled again, the image is signed and its signatures are deleted. LIMITED
# is a profile of a user who may only `inspect repos` in the image's compartment,
# which must be below the root. Checks that need a missing variable are skipped.
#
# In a pipeline, an instance or Cloud Shell it also describes the place.
# There REGISTRY=iad.ocir.io asks whether OCI Registry accepts the token that
# kubectl-oke_sign, which must be on the PATH, prints for pushing.
set -u
# The place where it runs, if the place has an identity. It prints no token.
say() { printf '%-20s %s\n' "$1" "$2"; }
claims() { cut -d. -f2 <<<"$1" | tr '_-' '/+' | { cat; printf '==='; } | base64 -di 2>/dev/null | tr ',' '\n' | grep -oE "\"($2)\":\"?[^\"]*" | tr '\n' ' '; }
if [ "${OCI_CLI_AUTH:-}" = instance_obo_user ]; then
  file=$(sed -n 's/^delegation_token_file *= *//p' "$OCI_CLI_CONFIG_FILE" | head -1)
  say delegation "$(claims "$(cat "$file")" 'ptype|ttype|iat|exp|act|opc-instance') (is it bound to an instance?)"
  metadata=${OCI_METADATA_BASE_URL:-http://169.254.169.254/opc/v2}
  say shellTenancy "$(curl -sH 'Authorization: Bearer Oracle' "$metadata/identity/cert.pem" | openssl x509 -noout -subject | grep -oE 'opc-tenant:[^ ,]*') (yours is ${OCI_CLI_TENANCY:-unknown})"
  say shellProfiles "$(grep -o '^\[.*\]' "$OCI_CLI_CONFIG_FILE" | tr '\n' ' ')"
fi
if [ -n "${OCI_RESOURCE_PRINCIPAL_VERSION:-}" ]; then
  say resourceVersion "$OCI_RESOURCE_PRINCIPAL_VERSION: $(env | grep -o '^OCI_RESOURCE_PRINCIPAL_[A-Z_]*' | tr '\n' ' ')"
fi
if [ -n "${OCI_DOMAIN_URL:-}" ] && [ -n "${OCI_OIDC_CLIENT_SECRET:-}" ]; then
  public=$(openssl genrsa 2048 2>/dev/null | openssl rsa -pubout -outform DER 2>/dev/null | base64 -w0)
  # A token of no issuer: the answer has the status for a wrong token.
  say oidcRefusal "HTTP $(curl -s -o /dev/null -w '%{http_code}' -u "$OCI_OIDC_CLIENT_ID:$OCI_OIDC_CLIENT_SECRET" "$OCI_DOMAIN_URL/oauth2/v1/token" \
    --data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange --data-urlencode requested_token_type=urn:oci:token-type:oci-upst \
    --data-urlencode subject_token_type=jwt --data-urlencode subject_token=eyJhbGciOiJSUzI1NiJ9.e30.AA --data-urlencode "public_key=$public")"
fi
if [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL:-}" ]; then
  job=$(printf 'header = "Authorization: bearer %s"\n' "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" | curl -sK - "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=${OCI_OIDC_AUDIENCE:-${OCI_DOMAIN_URL:-oci}}")
  say jobToken "$(claims "$job" 'sub|aud|iss')"
fi
if [ -n "${REGISTRY:-}" ]; then
  token=$(kubectl-oke_sign registry-token "$REGISTRY") &&
    say bearerToken "HTTP $(printf 'user = "BEARER_TOKEN:%s"\n' "$token" | curl -sK - -o /dev/null -w '%{http_code}' "https://$REGISTRY/20180419/docker/token") from $REGISTRY (200: accepted)"
fi
if [ -z "${KEY:-}${IMAGE:-}" ] && [ -n "${OCI_CLI_AUTH:-}${OCI_RESOURCE_PRINCIPAL_VERSION:-}${OCI_DOMAIN_URL:-}" ]; then exit 0; fi
oci="${OCI:-oci} --no-retry"
: "${KEY:?the OCID of an RSA key that nobody relies on}" "${IMAGE:?the OCID of an image that nobody relies on}"
algorithm=SHA_256_RSA_PKCS_PSS
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# run COMMAND…: its output, or "HTTP status code" of OCI's refusal.
run() {
  if $oci "$@" >"$tmp/out" 2>"$tmp/err"; then cat "$tmp/out"; return 0; fi
  sed -n 's/^ *"status": \([0-9]*\).*/HTTP \1/p' "$tmp/err" | head -1
  return 1
}
# field PATH COMMAND…: one value of the answer.
field() { local path=$1; shift; run "$@" --query "$path" --raw-output; }

image=(artifacts container image get --image-id "$IMAGE")
compartment=$(field 'data."compartment-id"' "${image[@]}") || { echo "cannot read IMAGE: $compartment" >&2; exit 1; }
repository=$(field 'data."repository-name"' "${image[@]}")
digest=$(field 'data.digest' "${image[@]}")
vault_ext=$(cut -d. -f5 <<<"$KEY")
region=${REGION:-$(field 'data[?"is-home-region"]."region-name" | [0]' iam region-subscription list)}
root=$(field 'data[0]."compartment-id"' iam compartment list --all)

found=
for form in "$region.oraclecloud.com" "$region.oci.oraclecloud.com"; do
  management=https://$vault_ext-management.kms.$form
  if version=$(field 'data."current-key-version"' kms management key get --key-id "$KEY" --endpoint "$management"); then
    found="$found $form"; endpoint=$management crypto=https://$vault_ext-crypto.kms.$form current=$version
  fi
done
say vaultHosts "answers:${found:- none}"
[ -n "$found" ] || exit 1

say ocidRegion "$(cut -d. -f4 <<<"$KEY")"
say keyVersionOCID "$(cut -d. -f5-6 <<<"$current")"
getversion=(kms management key-version get --key-id "$KEY" --key-version-id "$current" --endpoint "$endpoint")
field 'data."public-key"' "${getversion[@]}" >"$tmp/key.pem"
say pemLabel "$(head -1 "$tmp/key.pem")"

printf message >"$tmp/message"
sign=(kms crypto signed-data sign --key-id "$KEY" --message "$(base64 <"$tmp/message")" --message-type RAW --signing-algorithm $algorithm --endpoint "$crypto")
field 'data.signature' "${sign[@]}" | base64 -d >"$tmp/signature"
if grep -q RSA "$tmp/key.pem"; then openssl rsa -RSAPublicKey_in -in "$tmp/key.pem" -pubout -out "$tmp/key.pem" 2>/dev/null; fi
salt=unknown
for length in digest max; do
  openssl dgst -sha256 -verify "$tmp/key.pem" -signature "$tmp/signature" -sigopt rsa_padding_mode:pss -sigopt "rsa_pss_saltlen:$length" "$tmp/message" >/dev/null 2>&1 && salt=$length
done
say salt "$salt (with MGF1 of the same hash)"

run kms management key disable --key-id "$KEY" --endpoint "$endpoint" --wait-for-state DISABLED >/dev/null
say disabledCrypto "$(run "${sign[@]}" | head -1)"
say disabledVersion "$(field 'data."lifecycle-state"' "${getversion[@]}")"
run kms management key enable --key-id "$KEY" --endpoint "$endpoint" --wait-for-state ENABLED >/dev/null

list=(artifacts container image list --compartment-id "$compartment")
say pageLimit "$(field 'length(data.items)' "${list[@]}" --limit 1000) items of a page of 1000 (HTTP 400: refused), $(field 'length(data.items)' "${list[@]}") without a limit"
say order "$(field 'data.items[*]."display-name" | [[0], [-1]]' "${list[@]}" --all | tr -d ' \n') (first and last of an unsorted list; which was pushed first?)"
say emptyPages "first page has $(field 'length(data.items)' "${list[@]}" --limit 1) of 1"
say indexChildren "push an image index, then: oci artifacts container image list"
say dotDot "not asked: this command line tidies paths before it signs them"

upload=(artifacts container image-signature sign-upload --kms-key-id "$KEY" --kms-key-version-id "$current" --signing-algorithm $algorithm --image-id "$IMAGE")
uploaded() { $oci "${upload[@]}" "$@" >"$tmp/out" 2>"$tmp/err" && echo accepted || sed -n 's/^ *"status": \([0-9]*\).*/refused, HTTP \1/p' "$tmp/err" | head -1; }
if [ -n "$root" ] && [ "$root" != "$compartment" ]; then say uploadCompartment "$(uploaded --compartment-id "$root") with the root's compartment"; fi
first=$(uploaded --compartment-id "$compartment")
say uploadTwice "$first, then $(uploaded --compartment-id "$compartment")"
# A genuine signature by another algorithm. Its message is about another image.
other=SHA_512_RSA_PKCS_PSS
message=$(base64 <"$tmp/message")
signature=$(field 'data.signature' kms crypto signed-data sign --key-id "$KEY" --message "$message" --message-type RAW --signing-algorithm $other --endpoint "$crypto")
if answer=$(run artifacts container image-signature create --compartment-id "$compartment" --image-id "$IMAGE" --kms-key-id "$KEY" \
  --kms-key-version-id "$current" --message "$message" --signature "$signature" --signing-algorithm $other)
then say uploadValidation "accepted a message about nothing"
else say uploadValidation "refused a message about nothing, $answer"; fi

signatures=(artifacts container image-signature list --compartment-id "$compartment" --repository-name "$repository" --image-digest "$digest" --all)
for id in $(field 'join(`" "`, data.items[?"lifecycle-state"==`AVAILABLE`].id)' "${signatures[@]}"); do
  run artifacts container image-signature delete --image-signature-id "${id//\"/}" --force >/dev/null
done
say deletedRecords "$(field 'length(data.items)' "${signatures[@]}") records listed after all were deleted"

# Scan results exist only if there is a scan target.
results=(vulnerability-scanning container scan result list --compartment-id "$compartment" --repository "$repository" --all)
say scanImage "$(field 'data.items[0].image' "${results[@]}") (a tag, or repository:tag)"
if result=$(field 'data.items[0].id' "${results[@]}") && [ -n "$result" ]; then
  say resultURL "$(field 'data."registry-url"' vulnerability-scanning container scan result get --container-scan-result-id "$result")"
fi
say firstScans "make a recipe without --image-count and a target, and count the results"
say scanDenied "make a target where no policy lets vulnerability-scanning-service in, and look at its lifecycle-state"
say clusterKeys "oci ce cluster update with an ECDSA key in --image-policy-config, on a cluster that nobody relies on"
say targetRepository "make a target with a repository that is not there"

if [ -n "${LIMITED:-}" ]; then
  limited() { field "$1" --profile "$LIMITED" "${@:2}"; }
  say subtreeWithoutRoot "$(limited "length(data.items)" artifacts container repository list --compartment-id "$root" --compartment-id-in-subtree true --all) repositories"
  say listDenied "$(limited "length(data.items)" artifacts container repository list --compartment-id "$root" --all) repositories of the root"
  say lookupPermission "$(limited data.digest artifacts container image lookup --image-uri "$(field data os ns get)/$repository@$digest") (a digest: inspect is enough)"
fi
