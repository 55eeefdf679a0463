// Checks kafkajs, and its client of the schema registry.

import confluent from '@kafkajs/confluent-schema-registry'
import kafkajs from 'kafkajs'

import { bootstrap, expect, main, prefix, registry, until } from './features.mjs'

const kafka = new kafkajs.Kafka({ clientId: 'checks', brokers: [bootstrap], logLevel: kafkajs.logLevel.NOTHING })
const admin = kafka.admin()
await admin.connect()

async function newTopic(name, partitions = 1) {
  const topic = prefix + name
  const configEntries = [{ name: 'retention.ms', value: '-1' }]
  const topics = [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }]
  expect(true, await admin.createTopics({ topics }))
  return topic
}

async function producing(config, use) {
  const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner, ...config })
  await producer.connect()
  await use(producer)
  await producer.disconnect()
}

const fill = (topic, partitions, each) =>
  producing({}, async producer => {
    const indexes = [...Array(partitions * each).keys()]
    await producer.send({ topic, messages: indexes.map(index => ({ partition: index % partitions, value: `value${index}` })) })
  })

const fast = { sessionTimeout: 6000, heartbeatInterval: 500 }

async function read(topic, count, readUncommitted = true) {
  const consumer = kafka.consumer({ groupId: `${topic}-${readUncommitted}`, readUncommitted, ...fast })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const values = []
  await consumer.run({ eachMessage: async ({ message }) => { values.push(message.value.toString()) } })
  await until(() => values.length >= count)
  await consumer.disconnect()
  return values
}

async function committed(groupId, topics) {
  const found = await admin.fetchOffsets({ groupId, topics })
  return found.flatMap(({ partitions }) => partitions.map(({ offset }) => Number(offset)))
}

const partitionCount = async topic => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length

async function topics() {
  const topic = await newTopic('topics', 2)
  expect(2, await partitionCount(topic))
  expect(false, await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] }))
  await admin.deleteTopics({ topics: [topic] })
  await until(async () => !(await admin.listTopics()).includes(topic))
}

async function partitions() {
  const topic = await newTopic('partitions')
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
  await until(async () => (await partitionCount(topic)) === 3)
}

// It alters configs not incrementally, so one request has all.
async function configs() {
  const topic = await newTopic('configs')
  const wanted = { 'retention.ms': '60000', 'max.message.bytes': '2000' }
  const type = kafkajs.ConfigResourceTypes.TOPIC
  const configEntries = Object.entries(wanted).map(([name, value]) => ({ name, value }))
  await admin.alterConfigs({ validateOnly: false, resources: [{ type, name: topic, configEntries }] })
  const described = await admin.describeConfigs({ resources: [{ type, name: topic }] })
  for (const [name, value] of Object.entries(wanted)) {
    expect(value, described.resources[0].configEntries.find(entry => entry.configName === name).configValue)
  }
}

async function produce() {
  const topic = await newTopic('produce')
  const expected = []
  // It has these codecs without further packages.
  for (const codec of [kafkajs.CompressionTypes.None, kafkajs.CompressionTypes.GZIP]) {
    await producing({ idempotent: true }, async producer => {
      const values = [...Array(100).keys()].map(index => `${codec}-${index}`)
      expected.push(...values)
      await producer.send({ topic, compression: codec, messages: values.map(value => ({ value })) })
    })
  }
  expect(expected, await read(topic, 200))
}

async function group() {
  const topic = await newTopic('group', 4)
  await fill(topic, 4, 25)
  const groupId = `${prefix}group`
  const values = new Set()
  const join = async () => {
    const consumer = kafka.consumer({ groupId, ...fast })
    const member = { consumer, assigned: 0 }
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      member.assigned = payload.memberAssignment[topic]?.length ?? 0
    })
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({ eachMessage: async ({ message }) => { values.add(message.value.toString()) } })
    return member
  }
  const [first, second] = [await join(), await join()]
  await until(() => first.assigned === 2 && second.assigned === 2 && values.size === 100)
  await second.consumer.disconnect()
  await until(() => first.assigned === 4)
  await first.consumer.disconnect()
  expect(100, (await committed(groupId, [topic])).reduce((sum, offset) => sum + offset))
}

async function transactions() {
  const topic = await newTopic('transactions')
  await producing({ transactionalId: `${prefix}transactions`, maxInFlightRequests: 1, idempotent: true }, async producer => {
    for (const end of ['commit', 'abort', 'commit']) {
      const transaction = await producer.transaction()
      await transaction.send({ topic, messages: [...Array(50).keys()].map(index => ({ value: end + index })) })
      await transaction[end]()
    }
  })
  expect(150, (await read(topic, 150)).length)
  const values = await read(topic, 100, false)
  expect([100, true], [values.length, values.every(value => value.startsWith('commit'))])
}

async function transactionOffsets() {
  const topic = await newTopic('transaction-offsets')
  const groupId = `${prefix}transaction-offsets`
  await producing({ transactionalId: groupId, maxInFlightRequests: 1, idempotent: true }, async producer => {
    for (const end of ['abort', 'commit']) {
      const transaction = await producer.transaction()
      const offsets = [{ partition: 0, offset: '7' }]
      await transaction.sendOffsets({ consumerGroupId: groupId, topics: [{ topic, partitions: offsets }] })
      await transaction[end]()
      await until(async () => (await committed(groupId, [topic]))[0] === (end === 'commit' ? 7 : -1))
    }
  })
}

async function deleteGroups() {
  const groupId = `${prefix}delete-groups`
  await admin.setOffsets({ groupId, topic: await newTopic('delete-groups'), partitions: [{ partition: 0, offset: '0' }] })
  await admin.deleteGroups([groupId])
  expect(undefined, (await admin.listGroups()).groups.find(group => group.groupId === groupId))
}

async function deleteRecords() {
  const topic = await newTopic('delete-records')
  await fill(topic, 1, 100)
  // This loads the metadata, without which it does not find the leader.
  expect('0', (await admin.fetchTopicOffsets(topic))[0].low)
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '60' }] })
  expect('60', (await admin.fetchTopicOffsets(topic))[0].low)
  expect('value60', (await read(topic, 40))[0])
}

async function cluster() {
  const found = await admin.describeCluster()
  expect([1, true], [found.brokers.length, found.clusterId !== '' && found.controller === found.brokers[0].nodeId])
}

async function offsets() {
  const topic = await newTopic('offsets')
  await producing({}, async producer => {
    for (const timestamp of ['1000', '5000', '3000']) {
      await producer.send({ topic, messages: [{ value: 'value', timestamp }] })
    }
  })
  const [{ low, high }] = await admin.fetchTopicOffsets(topic)
  const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(topic, 2000)
  expect(['0', '3', '1'], [low, high, offset])
}

// Registers with the defaults of the client, which first read and write the compatibility of the subject.
async function schemaRegistry() {
  const client = new confluent.SchemaRegistry({ host: registry })
  const type = confluent.SchemaType.JSON
  const schema = JSON.stringify({ type: 'object', properties: { vin: { type: 'string' } }, required: ['vin'] })
  const subject = `${prefix}vehicle-value`
  const { id } = await client.register({ type, schema }, { subject })
  expect(id, (await client.register({ type, schema }, { subject })).id)
  expect(id, await client.getLatestSchemaId(subject))
  const payload = await client.encode(id, { vin: 'a' })
  expect({ vin: 'a' }, await client.decode(payload))
  const other = JSON.stringify({ type: 'object', properties: { vin: { type: 'number' } } })
  const refused = await client.register({ type, schema: other }, { subject }).then(() => false, () => true)
  expect(true, refused)
}

await main({
  topics,
  partitions,
  configs,
  produce,
  group,
  transactions,
  'transaction-offsets': transactionOffsets,
  'list-transactions': null,
  'delete-groups': deleteGroups,
  'delete-offsets': null,
  'delete-records': deleteRecords,
  'log-dirs': null,
  cluster,
  offsets,
  'schema-registry': schemaRegistry
})
