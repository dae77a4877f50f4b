# One Vault on a folder. Nothing secret is here: `lab provision vault` initializes and unseals it.
ui            = true
disable_mlock = true
api_addr      = "https://vault:8200"

storage "file" {
  path = "/vault/file"
}

listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/lab/tls/server.pem"
  tls_key_file  = "/lab/tls/server-key.pem"
}
