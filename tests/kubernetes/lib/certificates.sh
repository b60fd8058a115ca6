# A small certificate authority in $run/pki: who is who in the cluster. Sourced, never run.
# shellcheck shell=bash disable=SC2034,SC2154 # lab.sh and the others set and use variables

pki=$run/pki

certificate_authority() {
  mkdir -p "$pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=$lab" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature \
    -keyout "$pki/ca.key" -out "$pki/ca.crt" 2>/dev/null
  # What service accounts' tokens are signed with.
  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$pki/tokens.key" 2>/dev/null
}

# certificate FILE SUBJECT [NAMES]: a client's, and with names (DNS:…,IP:…) also a server's.
certificate() {
  local file=$pki/$1 subject=$2 names=${3:-}
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$subject" \
    -keyout "$file.key" -out "$file.csr" 2>/dev/null
  {
    echo "keyUsage=critical,digitalSignature"
    echo "extendedKeyUsage=clientAuth${names:+,serverAuth}"
    [[ -z $names ]] || echo "subjectAltName=$names"
  } >"$file.ext"
  openssl x509 -req -in "$file.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -set_serial "0x$(openssl rand -hex 8)" \
    -days 30 -extfile "$file.ext" -out "$file.crt" 2>/dev/null
  rm "$file.csr" "$file.ext"
}

# kubeconfig FILE SERVER CERTIFICATE: a file that needs no other.
kubeconfig() {
  (
    umask 077
    cat >"$1" <<EOF
apiVersion: v1
kind: Config
clusters:
- name: quorate
  cluster: {server: "$2", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}
users:
- name: $3
  user: {client-certificate-data: $(base64 -w0 "$pki/$3.crt"), client-key-data: $(base64 -w0 "$pki/$3.key")}
contexts:
- {name: quorate, context: {cluster: quorate, user: $3}}
current-context: quorate
EOF
  )
}
