// Drives the simulator with the vendor's own SDK, which parses every answer against its schemas.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ElevenLabsClient, ElevenLabsError } from "@elevenlabs/elevenlabs-js";

const { ELEVENSIM_URL: baseUrl, ELEVENSIM_ADMIN_KEY: adminKey, ELEVENSIM_ACCOUNT: account } = process.env;
const clientFor = (apiKey) => new ElevenLabsClient({ baseUrl, apiKey, maxRetries: 0 });
const admin = clientFor(adminKey);
const keys = admin.serviceAccounts.apiKeys;

const find = async (id) => (await keys.list(account)).apiKeys.find((k) => k.keyId === id);
const refused = (status, code) => (err) => {
  assert.ok(err instanceof ElevenLabsError, `${err}`);
  assert.equal(err.statusCode, status);
  if (code) assert.equal(err.body.detail.code, code);
  return true;
};

test("list", async () => {
  const { serviceAccounts } = await admin.serviceAccounts.list();
  assert.deepEqual(serviceAccounts.map((a) => a.serviceAccountUserId), [account, "svcacc_b"]);
  assert.deepEqual(serviceAccounts[0].apiKeys, []);
});

test("create a service account", async () => {
  const made = await admin.serviceAccounts.create({ name: "made by the SDK" });
  const { apiKeys } = await keys.list(made.serviceAccountUserId);
  assert.deepEqual(apiKeys, []);
});

test("the life of a key", async (t) => {
  const { xiApiKey, keyId } = await keys.create(account, {
    name: "every field",
    permissions: ["user_read", "models_read"],
    characterLimit: 1000,
    allowedIps: ["127.0.0.1", "10.0.0.0/8"],
    thirdPartyDisableAllowed: true,
    ttsConcurrencyLimit: 1,
    dubbingConcurrencyLimit: 2,
    musicConcurrencyLimit: 3,
  });
  const own = clientFor(xiApiKey);

  await t.test("shows in the listing as created", async () => {
    const k = await find(keyId);
    assert.equal(k.name, "every field");
    assert.equal(k.serviceAccountUserId, account);
    assert.deepEqual(k.permissions, ["user_read", "models_read"]);
    assert.equal(k.characterLimit, 1000);
    assert.deepEqual(k.allowedIps, ["127.0.0.1/32", "10.0.0.0/8"]);
    assert.equal(k.thirdPartyDisableAllowed, true);
    assert.equal(k.platformLimits.concurrency.limit, 1);
    assert.equal(k.platformLimits.dubbingConcurrency.limit, 2);
    assert.equal(k.platformLimits.musicConcurrency.limit, 3);
    assert.equal(k.isDisabled, false);
    assert.ok(!JSON.stringify(k).includes(xiApiKey));
  });

  await t.test("getUser and listModels", async () => {
    assert.equal((await own.user.get()).userId, account);
    assert.equal((await own.models.list())[0].languages.length, 2);
  });

  await t.test("update with arrays", async () => {
    await keys.update(account, keyId, { name: "renamed", permissions: ["user_read"], allowedIps: ["127.0.0.0/8"], characterLimit: 7 });
    const k = await find(keyId);
    assert.deepEqual([k.name, k.permissions, k.allowedIps, k.characterLimit], ["renamed", ["user_read"], ["127.0.0.0/8"], 7]);
    await assert.rejects(own.models.list(), refused(401, "missing_permissions"));
  });

  await t.test("update with no_update", async () => {
    const before = await find(keyId);
    await keys.update(account, keyId, {
      isEnabled: "no_update", permissions: "no_update", characterLimit: "no_update", allowedIps: "no_update",
      thirdPartyDisableAllowed: "no_update", ttsConcurrencyLimit: "no_update", dubbingConcurrencyLimit: "no_update", musicConcurrencyLimit: "no_update",
    });
    assert.deepEqual(await find(keyId), before);
  });

  await t.test("update with clear", async () => {
    await keys.update(account, keyId, {
      characterLimit: "clear", allowedIps: "clear", thirdPartyDisableAllowed: "clear",
      ttsConcurrencyLimit: "clear", dubbingConcurrencyLimit: "clear", musicConcurrencyLimit: "clear",
    });
    const k = await find(keyId);
    assert.deepEqual([k.characterLimit, k.allowedIps, k.thirdPartyDisableAllowed, k.platformLimits], [undefined, undefined, undefined, undefined]);
    assert.deepEqual(k.permissions, ["user_read"]);
  });

  await t.test("optional settings alone, by number and by false", async () => {
    const before = await find(keyId);
    await keys.update(account, keyId, { ttsConcurrencyLimit: 0, musicConcurrencyLimit: 5, thirdPartyDisableAllowed: false });
    const k = await find(keyId);
    assert.deepEqual([k.platformLimits.concurrency.limit, k.platformLimits.dubbingConcurrency, k.platformLimits.musicConcurrency.limit], [0, undefined, 5]);
    assert.equal(k.thirdPartyDisableAllowed, false);
    assert.deepEqual([k.name, k.permissions, k.characterLimit], [before.name, before.permissions, before.characterLimit]);
    await assert.rejects(own.workspaces.apiKeys.disable({ apiKeyName: "self" }), refused(403, "self_disable_not_allowed"));
    await keys.update(account, keyId, { thirdPartyDisableAllowed: true });
  });

  await t.test("disable and enable", async () => {
    await keys.update(account, keyId, { isEnabled: false });
    await assert.rejects(own.user.get(), refused(401, "invalid_api_key"));
    await keys.update(account, keyId, { isEnabled: true });
    await own.user.get();
  });

  await t.test("all permissions", async () => {
    await keys.update(account, keyId, { permissions: "all" });
    assert.equal((await find(keyId)).permissions, undefined);
    await own.models.list();
  });

  await t.test("self-disable", async () => {
    await own.workspaces.apiKeys.disable({ apiKeyName: "self" });
    assert.equal((await find(keyId)).disableReason, "self_disabled");
    await assert.rejects(own.user.get(), refused(401, "invalid_api_key"));
  });

  await t.test("delete", async () => {
    await keys.delete(account, keyId);
    assert.equal(await find(keyId), undefined);
    await assert.rejects(keys.delete(account, keyId), refused(404, "api_key_not_found"));
  });
});

test("wrong key", async () => {
  await assert.rejects(clientFor("sk_wrong").serviceAccounts.list(), refused(401, "invalid_api_key"));
});

test("missing field", async () => {
  // The SDK refuses to leave the name out by itself; undefined is dropped from the body.
  const without = { additionalBodyParameters: { name: undefined } };
  await assert.rejects(keys.create(account, { name: "n", permissions: "all" }, without), (err) => {
    refused(422)(err);
    assert.deepEqual(err.body.detail, [{ loc: ["body", "name"], msg: "Field required", type: "missing" }]);
    return true;
  });
});
