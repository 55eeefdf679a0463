// Creates the user of ads, who may read and write the database of ads and no other. The image runs this once, without
// access control, when it initializes an empty volume.
const url = fs.readFileSync('/run/secrets/ads-database-url', 'utf8').trim();
const [, user, pwd, name] = url.match(/^mongodb:\/\/(\w+):(\w+)@[^/]+\/(\w+)$/);
db.getSiblingDB(name).createUser({ user, pwd, roles: [{ role: 'readWrite', db: name }] });
