// An OpenID provider for tests: oidc-provider with accounts that need no password. The configuration is the JSON in
// IDENTITY_PROVIDER: {port, clients, accounts: {<id>: <claims>}}. Whoever is asked to sign in is the account in `login_hint`,
// else the first one, and agrees to everything; `nobody` refuses. Ends with its standard input.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { Provider } from 'oidc-provider';

const { port, clients, accounts } = JSON.parse(process.env.IDENTITY_PROVIDER);

// A key of its own for each start: a provider that starts again has changed its keys.
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const jwk = { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients,
  jwks: { keys: [jwk] },
  cookies: { keys: [randomUUID()] },
  claims: {
    openid: ['sub'],
    email: ['email'],
    profile: ['given_name', 'family_name', 'preferred_username'],
    groups: ['groups'],
  },
  scopes: ['openid', 'email', 'profile', 'groups'],
  features: {
    devInteractions: { enabled: false },
    deviceFlow: { enabled: true },
    clientCredentials: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
  pkce: { required: (_ctx, client) => client.clientId === 'perses' },
  findAccount: (_ctx, id) => accounts[id] && { accountId: id, claims: () => ({ sub: id, ...accounts[id] }) },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  // Consent: everything that is asked for.
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({
      clientId: ctx.oidc.client.clientId,
      accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope('openid email profile groups');
    await grant.save();
    return grant;
  },
});

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { params } = await provider.interactionDetails(ctx.req, ctx.res);
  const accountId = params.login_hint ?? Object.keys(accounts)[0];
  const answer = accountId === 'nobody' ? { error: 'access_denied', error_description: 'the user said no' } : { login: { accountId } };
  ctx.respond = false;
  return provider.interactionFinished(ctx.req, ctx.res, answer, { mergeWithLastSubmission: false });
});

process.stdin.on('end', () => process.exit()).resume();
provider.listen(port, '127.0.0.1');
