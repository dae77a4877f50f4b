#!/bin/sh
# Makes Temporal's two databases, or brings them up to date. The tool takes the password from its environment alone; it is
# read from a file here, so that it stands in no argument and in no compose file.
set -eu
SQL_PASSWORD=$(cat /run/secrets/postgres-password-of-temporal)
export SQL_PASSWORD
for database in temporal temporal_visibility; do
	kind=${database#temporal_}
	tool() { temporal-sql-tool --plugin postgres12 --endpoint postgres --port 5432 --user temporal --database "$database" "$@"; }
	tool create-database
	tool setup-schema --version 0.0
	tool update-schema --schema-name "postgresql/v12/$kind"
done
