import Core
import Foundation
import OnnxRuntimeBindings

/// The classifier or embedder, run by onnxruntime; its tokenizer is C++.
public final class Model: @unchecked Sendable {
    private let file: String
    private let environment: ORTEnv
    private let session: ORTSession
    private let inputs: [String]
    private let loadMs: Double
    private var startMs = 0.0

    public init() throws {
        let started = DispatchTime.now()
        setenv("ORT_DISABLE_TELEMETRY", "1", 1)  // onnxruntime must not report its use
        file = try modelFile(".onnx")
        environment = try ORTEnv(loggingLevel: .warning)
        let options = try ORTSessionOptions()
        try options.setIntraOpNumThreads(encoder_threads())
        session = try ORTSession(env: environment, modelPath: file, sessionOptions: options)
        inputs = try session.inputNames()
        loadMs = since(started)
    }

    /// Read `text` `repeats` times, showing the first answer; returns the profile as JSON.
    public func run(_ text: String, repeats: Int, show: @escaping (String) -> Void) throws -> String {
        var times: [Double] = []
        var count: Int32 = 0
        while times.count < repeats {
            let before = DispatchTime.now()
            var ids = [Int32](repeating: 0, count: Int(encoder_context()))
            count = tokenize(text, Int32(text.utf8.count), &ids, encoder_context())
            let output = try run(ids.prefix(Int(count)).map(Int64.init))
            let answer = taken(encoder_answer(output, Int32(output.count), count))
            times.append(since(before))
            if times.count == 1 { show(answer) }
        }
        if startMs == 0 { startMs = loadMs + times[0] }
        return taken(encoder_profile(file, encoder_threads(), loadMs, startMs, times, Int32(times.count), count))
    }

    private func run(_ ids: [Int64]) throws -> [Float] {
        var given: [String: ORTValue] = [:]
        for name in inputs {
            let values = name == "input_ids" ? ids : [Int64](repeating: name == "attention_mask" ? 1 : 0, count: ids.count)
            let data = NSMutableData(bytes: values, length: values.count * MemoryLayout<Int64>.stride)
            given[name] = try ORTValue(tensorData: data, elementType: .int64, shape: [1, NSNumber(value: ids.count)])
        }
        let wanted = String(cString: encoder_output())
        let found = try session.run(withInputs: given, outputNames: [wanted], runOptions: nil)
        guard let data = try found[wanted]?.tensorData() as Data? else { throw Failure(message: "no output \(wanted)") }
        return data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    }
}

private func since(_ time: DispatchTime) -> Double {
    Double(DispatchTime.now().uptimeNanoseconds - time.uptimeNanoseconds) / 1e6
}
